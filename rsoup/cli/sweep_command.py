"""`rsoup sweep` as a command: its arguments, and nothing that is slow to import."""

from __future__ import annotations

from typing import Annotated

import typer

from rsoup.cli.options import Debug, Json, Key, Missing, Quiet, Threads, Variant, Vocab

_POINTS = "Points"
_EVALUATION = "Evaluation"
_SOUPS = "Soups"
_RUN = "Run"


def sweep(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="Ingredients as for merge; 'NAME=run/checkpoint-*' is a series, one front per training step. Or one "
            "sweep.yaml. Or the folder of a sweep, to go on with it.",
        ),
    ],
    out: Annotated[
        str | None, typer.Option("-o", "--out", help="The sweep's folder; the same command goes on in it.")
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            "--grid",
            min=2,
            metavar="N",
            help="N values on every edge of the simplex: 11 is steps of 1/10.",
            rich_help_panel=_POINTS,
        ),
    ] = None,
    scheffe: Annotated[
        bool, typer.Option("--scheffe", help="Vertices, midpoints and the centre.", rich_help_panel=_POINTS)
    ] = False,
    lambda_: Annotated[
        list[str] | None,
        typer.Option(
            "--lambda", metavar="λ,λ…", help="A λ as for merge; several times.", rich_help_panel=_POINTS
        ),
    ] = None,
    csv: Annotated[
        str | None,
        typer.Option(
            "--csv", metavar="FILE", help="λ from a file: a column per ingredient.", rich_help_panel=_POINTS
        ),
    ] = None,
    random: Annotated[
        int,
        typer.Option("--random", min=0, metavar="K", help="K random λ (Dirichlet).", rich_help_panel=_POINTS),
    ] = 0,
    sobol: Annotated[
        int,
        typer.Option(
            "--sobol", min=0, metavar="K", help="K evenly spread λ (Sobol).", rich_help_panel=_POINTS
        ),
    ] = 0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Of --random and --sobol.", rich_help_panel=_POINTS)
    ] = 0,
    waypoint: Annotated[
        list[str] | None,
        typer.Option(
            "--waypoint",
            metavar="NAME=PATH",
            help="The grid leads from one expert through this checkpoint to the other.",
            rich_help_panel=_POINTS,
        ),
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            "--scales",
            metavar="S,S…",
            help="Every λ at these distances from the base: 0,0.5,1 or grid:11.",
            rich_help_panel=_POINTS,
        ),
    ] = None,
    refine: Annotated[
        int,
        typer.Option(
            "--refine",
            min=0,
            metavar="K",
            help="After these, K more where the front gains most.",
            rich_help_panel=_POINTS,
        ),
    ] = 0,
    strategy: Annotated[
        str,
        typer.Option(
            "--strategy",
            metavar="points|greedy|uniform",
            help="greedy: the greedy model soup of the checkpoints; uniform: all in equal shares, and each alone.",
            rich_help_panel=_POINTS,
        ),
    ] = "points",
    metric: Annotated[
        str | None, typer.Option("--metric", help="The reward that greedy improves.", rich_help_panel=_POINTS)
    ] = None,
    accept_equal: Annotated[
        bool,
        typer.Option("--accept-equal", help="greedy: keep what is as good, too.", rich_help_panel=_POINTS),
    ] = False,
    eval_: Annotated[
        str | None,
        typer.Option(
            "--eval",
            metavar="COMMAND",
            help="Scores a soup; JSON on the last line of its stdout. {model} {out} {lambda} {point} {seed} {split} "
            "{base} {step} {scale} are filled in.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            "--function",
            metavar="MODULE:NAME",
            help="Or a Python function of a live soup: no files.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward",
            metavar="NAME[=ADDRESS][:min]",
            help="What is optimised: helpful, loss:min, score=$.results.score, acc=lm-eval:gsm8k:acc,none; several times.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    guard: Annotated[
        list[str] | None,
        typer.Option(
            "--guard",
            metavar="NAME[=ADDRESS][:min]",
            help="What is recorded only; several times.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    metrics_file: Annotated[
        str | None,
        typer.Option(
            "--metrics-file",
            metavar="FILE",
            help="Read the JSON here: {out}/metrics.json.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    eval_file: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-file",
            metavar="FILE",
            help="A file that decides the scores, besides those the command names.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    eval_version: Annotated[
        str | None,
        typer.Option(
            "--eval-version",
            metavar="TEXT",
            help="Another version, other results.",
            rich_help_panel=_EVALUATION,
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(
            "--timeout", metavar="10min", help="End an evaluation after this.", rich_help_panel=_EVALUATION
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats",
            min=1,
            help="Evaluations of every point, with the seeds 0, 1 and so on.",
            rich_help_panel=_EVALUATION,
        ),
    ] = 1,
    report: Annotated[
        int,
        typer.Option(
            "--report",
            min=0,
            help="Evaluations of the front's points with other seeds, to report.",
            rich_help_panel=_EVALUATION,
        ),
    ] = 0,
    report_all: Annotated[
        bool,
        typer.Option(
            "--report-all", help="--report: every point, not the front's alone.", rich_help_panel=_EVALUATION
        ),
    ] = False,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The checkpoint all were fine-tuned from.", rich_help_panel=_SOUPS),
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="linear, task_arithmetic, slerp, factors.", rich_help_panel=_SOUPS)
    ] = "linear",
    level: Annotated[
        str, typer.Option("--level", help="slerp: tensor or global.", rich_help_panel=_SOUPS)
    ] = "tensor",
    affine: Annotated[
        bool, typer.Option("--affine", help="Take any λ, negative too.", rich_help_panel=_SOUPS)
    ] = False,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Store soups in this type.", rich_help_panel=_SOUPS)
    ] = None,
    variant: Variant = None,
    key: Key = None,
    missing: Missing = None,
    vocab: Vocab = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from", metavar="NAME", help="Whose other files are copied.", rich_help_panel=_SOUPS
        ),
    ] = None,
    buffers_from: Annotated[
        str | None,
        typer.Option(
            "--buffers-from", metavar="NAME", help="Whose integer buffers are taken.", rich_help_panel=_SOUPS
        ),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Adapters: full weights.", rich_help_panel=_SOUPS)
    ] = False,
    rank: Annotated[
        str | None,
        typer.Option("--rank", metavar="R", help="Adapters: at most this rank.", rich_help_panel=_SOUPS),
    ] = None,
    max_error: Annotated[
        str | None,
        typer.Option(
            "--max-error",
            metavar="E",
            help="Adapters: smallest ranks within this error.",
            rich_help_panel=_SOUPS,
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="GLOB", help="Leave out tensors.", rich_help_panel=_SOUPS),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="CHECK", help="As for merge.", rich_help_panel=_SOUPS),
    ] = None,
    max_distance: Annotated[
        str, typer.Option("--max-distance", help="As for merge.", rich_help_panel=_SOUPS)
    ] = "0.7",
    jobs: Annotated[
        int, typer.Option("--jobs", min=1, help="Evaluations at the same time.", rich_help_panel=_RUN)
    ] = 1,
    gpus_per_job: Annotated[
        int,
        typer.Option(
            "--gpus-per-job",
            min=0,
            help="GPUs of its own for each (CUDA_VISIBLE_DEVICES).",
            rich_help_panel=_RUN,
        ),
    ] = 0,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            metavar="none|front|best|all",
            help="The soups that stay; default none.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    scratch_budget: Annotated[
        str | None,
        typer.Option(
            "--scratch-budget",
            metavar="50GB",
            help="Soups take at most this at a time; default most of what is free.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", metavar="2h", help="Stop in order after this: exit 75.", rich_help_panel=_RUN
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option("--retries", min=0, help="Try a failed evaluation again at once.", rich_help_panel=_RUN),
    ] = 0,
    max_failures: Annotated[
        int | None,
        typer.Option(
            "--max-failures",
            min=0,
            help="Stop when more evaluations have failed; default 2 while none has succeeded, then any number.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on in a folder whose results are of other weights, options or evaluators.",
            rich_help_panel=_RUN,
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Move damaged lines out of the results first.", rich_help_panel=_RUN),
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(
            "--track",
            metavar="trackio|wandb|mlflow[:PROJECT]",
            help="Mirror the results to an experiment tracker; none: no more.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Go on with more than 1000 points.", rich_help_panel=_RUN)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print points, bytes and time, and stop.", rich_help_panel=_RUN)
    ] = False,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Measure the rewards of soups at many λ, and the front they reach; type it again to go on where it was.

    Examples:

    rsoup sweep helpful/ harmless/ --base base/ --grid 11 --eval 'python score.py {model}' --reward helpful --reward harmless -o run/

    rsoup sweep sweep.yaml -o run/ --jobs 2 --keep front

    rsoup sweep run/ --budget 2h
    """
    from rsoup.cli import sweep as command
    from rsoup.cli.sweep_arguments import Arguments
    from rsoup.console import Console

    asked = Arguments(
        checkpoints=checkpoints, grid=grid, scheffe=scheffe, mixes=tuple(lambda_ or ()), csv=csv, random=random, sobol=sobol,
        seed=seed, waypoints=tuple(waypoint or ()), scales=scales, refine=refine, strategy=strategy, metric=metric,
        accept_equal=accept_equal, run=eval_, function=function, rewards=tuple(reward or ()), guards=tuple(guard or ()),
        metrics_file=metrics_file, files=tuple(eval_file or ()), version=eval_version, timeout=timeout, repeats=repeats,
        report=report, report_all=report_all, base=base, method=method, level=level, affine=affine, dtype=dtype, variant=variant, key=key,
        missing=missing, vocab=vocab, files_from=files_from, buffers_from=buffers_from, fold=fold, rank=rank,
        max_error=max_error, drop=tuple(drop or ()), allow=tuple(allow or ()), max_distance=max_distance,
    )  # fmt: skip
    run = command.Running(
        out=out, jobs=jobs, gpus_per_job=gpus_per_job, keep=keep, scratch_budget=scratch_budget, budget=budget, retries=retries,
        max_failures=max_failures, accept_changes=accept_changes, repair=repair, yes=yes, threads=threads, track=track,
    )  # fmt: skip
    console = Console(as_json=json_, quiet=quiet)
    (command.show_outlook if dry_run else command.run)(asked, run, console=console)
