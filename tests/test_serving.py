"""Servers of adapters: what each does not accept is found and named, and the command that serves it is exact."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import pytest

from rsoup.errors import RefusedFileError, UsageError
from rsoup.lora.serving import SERVERS, Finding, command, lint
from rsoup.tensors import DTYPES, Header, TensorSpec

LAYER = "model.layers.0.self_attn"
FOLD = "--fold, which writes whole weights"
LABELS = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}


def spec(*shape: int, dtype: str = "BF16") -> TensorSpec:
    """A tensor of that shape."""
    return TensorSpec(DTYPES[dtype], shape)


def factors(module: str, rank: int = 16, dtype: str = "BF16") -> dict[str, TensorSpec]:
    """The two tensors of one module's update."""
    name = f"base_model.model.{module}"
    return {
        f"{name}.lora_A.weight": spec(rank, 64, dtype=dtype),
        f"{name}.lora_B.weight": spec(64, rank, dtype=dtype),
    }


def header(**ranks: int) -> dict[str, TensorSpec]:
    """An adapter of `q_proj` and `v_proj` of rank 16, but for the ranks given."""
    wanted = {"q_proj": 16, "v_proj": 16, **ranks}
    return {k: v for leaf, rank in wanted.items() for k, v in factors(f"{LAYER}.{leaf}", rank).items()}


def config(**changed: object) -> dict[str, object]:
    """What rsoup writes beside an adapter of rank 16, but for what is changed."""
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "org/base",
        "r": 16,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "lora_bias": False,
        "bias": "none",
        "modules_to_save": None,
        "init_lora_weights": True,
        "inference_mode": True,
        **changed,
    }


def whats(server: str, changed: Mapping[str, object], tensors: Header) -> list[str]:
    """What `lint` finds, without the remedies."""
    return [finding.what for finding in lint(server, config(**changed), tensors)]


@pytest.mark.parametrize("server", SERVERS)
def test_what_rsoup_writes_is_served(server: str) -> None:
    """One rank, α = r, a list of targets, factors alone: no server has anything against it."""
    assert lint(server, config(), header()) == []
    assert lint(server, config(target_modules=["q_proj", "k_proj", "v_proj"]), header(k_proj=16)) == []


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3"])
def test_every_float_is_served(server: str, dtype: str) -> None:
    """Servers convert the factors to the type they compute in."""
    tensors = factors(f"{LAYER}.q_proj", dtype=dtype) | factors(f"{LAYER}.v_proj", dtype=dtype)

    assert lint(server, config(), tensors) == []


@pytest.mark.parametrize("server", SERVERS)
def test_one_scaling_for_all_is_served(server: str) -> None:
    """α/r other than 1 is no matter while it is one for all modules."""
    assert lint(server, config(lora_alpha=32.0), header()) == []


@pytest.mark.parametrize("server", SERVERS)
def test_embeddings_are_served(server: str) -> None:
    """A low-rank update of embed_tokens, and the copy of the base that PEFT may save with it."""
    name = "base_model.model.model.embed_tokens"
    tensors = {
        **header(),
        f"{name}.lora_embedding_A": spec(16, 1000),
        f"{name}.lora_embedding_B": spec(64, 16),
        f"{name}.base_layer.weight": spec(1000, 64),
    }

    assert lint(server, config(), tensors) == []


def test_vllm_serves_ranks_up_to_512() -> None:
    """A rank between two steps is served by the higher; one above the last is not, and its modules are named."""
    assert lint("vllm", config(r=512, lora_alpha=512), header(q_proj=512, v_proj=512)) == []
    assert lint("vllm", config(r=513, lora_alpha=513), header(q_proj=513, v_proj=513)) == [
        Finding(f"vLLM serves ranks up to 512; 513 in '{LAYER}.q_proj' and '{LAYER}.v_proj'", "--rank 512")
    ]


@pytest.mark.parametrize("server", ["sglang", "llamacpp"])
def test_the_others_serve_every_rank(server: str) -> None:
    """SGLang and llama.cpp have no highest rank."""
    assert lint(server, config(r=513, lora_alpha=513), header(q_proj=513, v_proj=513)) == []


MIXED = {"r": 24, "lora_alpha": 24, "rank_pattern": {"v_proj": 16}, "alpha_pattern": {"v_proj": 16}}


def test_mixed_ranks() -> None:
    """With α = r everywhere vLLM serves them, SGLang stops at them, llama.cpp would scale them by one α/r each."""
    tensors = header(q_proj=24)
    remedy = f"--rank 16, one rank and scaling for all; or {FOLD}"

    assert lint("vllm", config(**MIXED), tensors) == []
    assert lint("sglang", config(**MIXED), tensors) == [
        Finding(f"SGLang serves one rank, here r = 24; another in '{LAYER}.v_proj'", remedy)
    ]
    assert lint("llamacpp", config(**MIXED), tensors) == [
        Finding(
            f"llama.cpp scales every module by lora_alpha / its rank alone: wrong for '{LAYER}.v_proj'",
            remedy,
        )
    ]


@pytest.mark.parametrize(
    ("server", "what"),
    [
        ("vllm", "an older vLLM scales every module by lora_alpha and r alone"),
        ("sglang", "SGLang scales every module by lora_alpha and r alone"),
        ("llamacpp", "llama.cpp scales every module by lora_alpha / its rank alone"),
    ],
)
def test_a_scaling_of_its_own(server: str, what: str) -> None:
    """No server but a new vLLM reads alpha_pattern; the first pattern that fits is what PEFT takes."""
    patterns = {"layers.1.v_proj": 99, r"layers\.0\..*v_proj": 32, "v_proj": 16}

    assert lint(server, config(alpha_pattern=patterns), header()) == [
        Finding(f"{what}: wrong for '{LAYER}.v_proj'", f"--rank 16, one rank and scaling for all; or {FOLD}")
    ]


def test_rslora() -> None:
    """vLLM divides α by √r as PEFT does; SGLang and llama.cpp divide by r."""
    wrong = f"wrong for '{LAYER}.q_proj' and '{LAYER}.v_proj'"

    assert whats("vllm", {"use_rslora": True}, header()) == []
    assert whats("sglang", {"use_rslora": True}, header()) == [
        f"SGLang scales every module by lora_alpha and r alone: {wrong}"
    ]
    assert whats("llamacpp", {"use_rslora": True}, header()) == [
        f"llama.cpp scales every module by lora_alpha / its rank alone: {wrong}"
    ]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("r", [16.0, "16", 0, -1, True, None])
def test_ranks_are_whole_numbers(server: str, r: object) -> None:
    """Anything else as r or in rank_pattern is named, and nothing is computed with it."""
    found = [
        Finding(
            f"{LABELS[server]} takes whole numbers from 1 as ranks; not so 'r' and 'q_proj'",
            "write them so in adapter_config.json",
        )
    ]

    assert lint(server, config(r=r, rank_pattern={"q_proj": r, "v_proj": 16}), header()) == found


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("alpha", [0, 0.0, "16", False, None])
def test_alphas_are_numbers(server: str, alpha: object) -> None:
    """α = 0 means s = 1 to llama.cpp and no adapter to the others; what is no number means nothing."""
    found = whats(server, {"lora_alpha": alpha, "alpha_pattern": {"q_proj": alpha}}, header())

    assert found == [f"{LABELS[server]} takes numbers other than 0 as alphas; not so 'lora_alpha' and 'q_proj'"]  # fmt: skip


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("changed", "tensors", "what"),
    [
        ({"peft_type": "ADALORA"}, {}, "peft_type ADALORA"),
        ({"use_dora": True}, {}, "DoRA (use_dora)"),
        (
            {"use_dora": True},
            {f"base_model.model.{LAYER}.q_proj.lora_magnitude_vector": spec(64)},
            f"DoRA (use_dora): '{LAYER}.q_proj'",
        ),
        (
            {"init_lora_weights": "pissa_niter_4"},
            {},
            "init_lora_weights pissa_niter_4, which changes the base",
        ),
        ({"lora_bias": True}, {}, "biases (bias, lora_bias)"),
        ({"bias": "all"}, {}, "biases (bias, lora_bias)"),
        (
            {"bias": "lora_only"},
            {
                f"base_model.model.{LAYER}.v_proj.lora_B.bias": spec(64),
                f"base_model.model.{LAYER}.q_proj.base_layer.bias": spec(64),
                "base_model.model.model.norm.bias": spec(64),
            },
            f"biases (bias, lora_bias): '{LAYER}.v_proj.lora_B.bias' and 'model.norm.bias'",
        ),
        ({"trainable_token_indices": [1]}, {}, "trained token rows (trainable_token_indices)"),
        (
            {"trainable_token_indices": {"embed_tokens": [1]}},
            {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": spec(1, 64)},
            "trained token rows (trainable_token_indices): 'model.embed_tokens.weight'",
        ),
        (
            {"modules_to_save": ["lm_head"]},
            {"base_model.model.lm_head.weight": spec(1000, 64), "base_model.model.lm_head.bias": spec(1000)},
            "whole modules (modules_to_save): 'lm_head'",
        ),
        (
            {},
            {"base_model.model.model.norm.weight": spec(64)},
            "tensors beside lora_A and lora_B: 'model.norm.weight'",
        ),
        (
            {},
            {
                f"base_model.model.{LAYER}.conv.lora_A.weight": spec(16, 3, 3, 3),
                f"base_model.model.{LAYER}.conv.lora_B.weight": spec(64, 16, 1, 1),
            },
            f"convolutions: '{LAYER}.conv'",
        ),
        (
            {},
            factors(f"{LAYER}.o_proj", dtype="I8"),
            f"factors of other than floating-point numbers: '{LAYER}.o_proj'",
        ),
    ],
)
def test_no_server_serves(server: str, changed: dict[str, object], tensors: Header, what: str) -> None:
    """What is served by none of the three, from the configuration and from the file, as one finding each."""
    on_vllm = [
        f"vLLM serves no tensors beside lora_A and lora_B: '{LAYER}.q_proj.bias'"
    ] * (server == "vllm" and changed.get("bias") == "lora_only")  # fmt: skip

    found = lint(server, config(**changed), {**header(), **tensors})

    assert [finding.what for finding in found] == [f"{LABELS[server]} serves no {what}", *on_vllm]
    assert {finding.remedy for finding in found} <= {FOLD, "--dtype bfloat16"}


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "Orthogonal", "eva"])
def test_inits_that_leave_the_base_alone(init: object) -> None:
    """How an adapter began is no matter once it is trained, unless the base was changed for it."""
    assert lint("vllm", config(init_lora_weights=init), header()) == []


def test_heads_of_classifiers() -> None:
    """vLLM serves a whole `score` or `classifier`; the others nothing but factors."""
    changed: dict[str, object] = {"modules_to_save": ["score"]}
    tensors = {**header(), "base_model.model.score.weight": spec(2, 64)}

    assert whats("vllm", changed, tensors) == []
    assert whats("sglang", changed, tensors) == ["SGLang serves no whole modules (modules_to_save): 'score'"]
    assert len(whats("llamacpp", changed, tensors)) == 1


def test_activated_lora() -> None:
    """llama.cpp alone switches an adapter on at its invocation tokens."""
    changed: dict[str, object] = {"alora_invocation_tokens": [7]}

    assert whats("llamacpp", changed, header()) == []
    for server in ("vllm", "sglang"):
        assert lint(server, config(**changed), header()) == [
            Finding(
                f"{LABELS[server]} serves no activated LoRA (alora_invocation_tokens)", "--serve llamacpp"
            )
        ]


def test_stacked_experts() -> None:
    """vLLM alone serves target_parameters; the rank is the configuration's, though the factors hold 4 · 16 rows."""
    changed: dict[str, object] = {"target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
    experts = "model.layers.0.mlp.experts"
    tensors = {**header(), **factors(experts, 64), **factors(f"{experts}.base_layer", 64)}
    what = "stacked experts (target_parameters): 'mlp.experts.gate_up_proj' and 'mlp.experts.down_proj'"

    assert whats("vllm", changed, tensors) == []
    assert "--max-lora-rank 16 " in command("vllm", None, "soup", config(**changed), tensors)
    for server in ("sglang", "llamacpp"):
        assert lint(server, config(**changed), tensors) == [
            Finding(f"{LABELS[server]} serves no {what}", f"--serve vllm; or {FOLD}")
        ]


def test_a_tied_head() -> None:
    """The file does not say whether the base ties its head: llama.cpp refuses it only if so."""
    tensors = {**header(), **factors("lm_head")}

    assert whats("vllm", {}, tensors) == []
    assert whats("sglang", {}, tensors) == []
    assert lint("llamacpp", config(), tensors) == [
        Finding(
            "llama.cpp serves no lm_head that is tied to the embedding: 'lm_head'",
            f"nothing where the base has an lm_head of its own; else {FOLD}",
        )
    ]


def test_embeddings_of_other_names() -> None:
    """vLLM and SGLang know embeddings by name; llama.cpp maps every architecture's."""
    name = "base_model.model.gpt_neox.embed_in"
    tensors = {**header(), f"{name}.lora_embedding_A": spec(16, 9), f"{name}.lora_embedding_B": spec(64, 16)}

    assert whats("vllm", {}, tensors) == [
        "vLLM serves no embeddings but embed_tokens, lm_head, wte: 'gpt_neox.embed_in'"
    ]
    assert whats("sglang", {}, tensors) == [
        "SGLang serves no modules outside layers.N, embed_tokens and lm_head: 'gpt_neox.embed_in'"
    ]
    assert whats("llamacpp", {}, tensors) == []


def test_sglang_takes_a_list_of_targets() -> None:
    """A regular expression is refused with the list to write; `all-linear` is understood; vLLM reads the file."""
    found = lint("sglang", config(target_modules=".*(q|v)_proj"), header())

    assert found == [
        Finding(
            "SGLang takes a list as target_modules; this is .*(q|v)_proj",
            '"target_modules": ["q_proj", "v_proj"] in adapter_config.json',
        )
    ]
    assert len(lint("sglang", config(target_modules=None), header())) == 1
    assert lint("sglang", config(target_modules="all-linear"), header()) == []
    assert lint("vllm", config(target_modules=".*(q|v)_proj"), header()) == []


def test_sglang_reads_numbered_layers() -> None:
    """`h.0` is not `layers.0`: SGLang would serve the base and say nothing."""
    assert whats("sglang", {}, factors("transformer.h.0.attn.c_attn")) == [
        "SGLang serves no modules outside layers.N, embed_tokens and lm_head: 'transformer.h.0.attn.c_attn'"
    ]


@pytest.mark.parametrize("leaves", [("q_proj",), ("k_proj",), ("v_proj",), ("q_proj", "k_proj")])
def test_sglang_joins_attention(leaves: tuple[str, ...]) -> None:
    """An adapter on q_proj needs one on v_proj in the same layer, and the other way round."""
    tensors = {**factors("model.layers.1.mlp.down_proj"), **header()}
    for leaf in leaves:
        tensors |= factors(f"model.layers.1.self_attn.{leaf}")

    assert whats("sglang", {}, tensors) == [
        "SGLang serves no attention without an adapter on both q_proj and v_proj: 'model.layers.1.self_attn'"
    ]
    assert whats("vllm", {}, tensors) == whats("llamacpp", {}, tensors) == []


def test_names_cannot_write_to_the_terminal() -> None:
    """A module's name and a text of the configuration are shown without control characters, and cut."""
    tensors = factors("\x1b[2J.layer")
    changed = config(peft_type="\x1b[31m" + "x" * 500, target_modules="\x1b", init_lora_weights="\x1b]0;")

    text = "".join(finding.what + finding.remedy for finding in lint("sglang", changed, tensors))

    assert "\x1b" not in text
    assert "x" * 50 not in text


@pytest.mark.parametrize(
    ("rank", "step"),
    [(1, 1), (2, 8), (8, 8), (16, 16), (48, 64), (128, 128), (129, 256), (257, 320), (321, 512), (600, 512)],
)
def test_the_command_for_vllm(rank: int, step: int) -> None:
    """The next step that holds the highest rank, wherever it stands."""
    want = f"vllm serve org/base --enable-lora --max-lora-rank {step} --lora-modules soup=out/soup"

    assert want == command("vllm", "org/base", "out/soup", config(r=1), header(q_proj=rank, v_proj=1))
    assert want == command("vllm", "org/base", "out/soup", config(r=rank), header(q_proj=1, v_proj=1))
    patterns = config(r=1, rank_pattern={"nowhere": rank})
    assert want == command("vllm", "org/base", "out/soup", patterns, header(q_proj=1, v_proj=1))


def test_the_command_for_sglang() -> None:
    """The highest rank itself: SGLang has no steps."""
    assert command("sglang", None, "soup/", config(), header(q_proj=48)) == (
        "sglang serve --model-path BASE --max-lora-rank 48 --lora-paths soup=soup"
    )


def test_the_commands_for_llama_cpp() -> None:
    """Two: one converts the adapter by the base's configuration, from a folder or from the Hub, one serves it."""
    convert = "python convert_lora_to_gguf.py {} --outtype f32 --outfile out/soup.gguf out/soup &&\n"
    serve = "llama-server --model BASE.gguf --lora out/soup.gguf"
    bases = {None: "--base BASE", "/models/base": "--base /models/base", "./org/base": "--base ./org/base"}

    for base, option in {**bases, "org/base-1.5": "--base-model-id org/base-1.5"}.items():
        assert command("llamacpp", base, "out/soup", config(), header()) == convert.format(option) + serve


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("path", ["/a b/it's", "-soup", "$(reboot)", "a\nb", "/"])
def test_paths_are_quoted(server: str, path: str) -> None:
    """A shell reads the path back as it is, and no tool takes it for an option."""
    safe = f"./{path}" if path.startswith("-") else path
    line = command(server, path, path, config(), header())
    words = shlex.split(line.partition(" &&\n")[0]) if server == "llamacpp" else shlex.split(line)

    assert words[-1] == (safe if server == "llamacpp" else f"soup={safe}")
    assert safe in words


@pytest.mark.parametrize("path", ["a,b", "a=b"])
def test_paths_that_vllm_would_split(path: str) -> None:
    """With a comma or an equals sign in the path it is told as JSON; llama-server would split at the comma."""
    line = command("vllm", "base", path, config(), header())

    assert shlex.split(line)[-1] == f'{{"name": "soup", "path": "{path}"}}'
    out = "soup.gguf" if "," in path else "a=b.gguf"
    assert shlex.split(command("llamacpp", "base", path, config(), header()))[-1] == out


def test_a_server_of_another_name() -> None:
    """It is refused with the nearest name, or all of them."""
    with pytest.raises(UsageError, match="there is no server 'vlm'") as near:
        lint("vlm", config(), header())
    with pytest.raises(UsageError, match="there is no server 'tgi'") as far:
        command("tgi", None, "soup", config(), header())

    assert (near.value.code, near.value.hint) == ("E0210", "did you mean 'vllm'?")
    assert (far.value.code, far.value.hint) == ("E0210", "one of vllm, sglang, llamacpp")


def test_a_file_that_is_no_adapter() -> None:
    """A tensor without a place in an adapter is an error, not a finding."""
    with pytest.raises(RefusedFileError, match="have no place in an adapter"):
        lint("vllm", config(), {"model.norm.weight": spec(64)})
