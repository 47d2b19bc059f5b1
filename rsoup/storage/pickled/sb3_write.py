"""The archive of a policy soup: the donor's members, the soup's policy, optimisers that begin anew or are kept."""

from __future__ import annotations

from collections.abc import Mapping

from rsoup.errors import RefusedFileError, UsageError, listing
from rsoup.storage.pickled.sb3 import POLICY, Sb3Archive, table
from rsoup.storage.pickled.torch_write import archive, plain_archive
from rsoup.storage.pickled.zip_write import Archive, ZipLayout
from rsoup.tensors import TensorSpec


def sb3_archive(
    tensors: Mapping[str, TensorSpec], donor: Sb3Archive, optimizers: Sb3Archive | None = None
) -> Archive:
    """An archive `PPO.load` and its like accept, with room for the policy's `tensors`.

    All other members are the donor's, byte for byte; the optimisers' states are those of `optimizers`, else
    states without a history (Stable-Baselines3 wants them to be there). Raises UsageError E0217 where they are
    to be kept and there are none, RefusedFileError E0816 for a damaged member.
    """
    if optimizers is not None and not optimizers.optimizers:
        raise UsageError(
            "E0217",
            f"there is no optimiser state to keep; the archive holds {listing(list(optimizers.members))}",
            where=optimizers.shown,
            hint="leave out --optimizer-from",
        )
    kept = optimizers.optimizers if optimizers is not None else []
    layout = ZipLayout()
    offsets: dict[str, int] = {}
    for name in donor.members:
        if name == POLICY:
            policy = archive(tensors, root="policy")
            begin = layout.nest(name, policy)
            offsets = {tensor: begin + at for tensor, at in policy.offsets.items()}
        elif optimizers is not None and name in kept:
            layout.add(name, optimizers.content(name))
        elif name in donor.optimizers:
            layout.add(name, plain_archive(fresh_state(donor, name), root="archive"))
        else:
            layout.add(name, donor.content(name))
    return layout.finished(offsets)


def fresh_state(donor: Sb3Archive, name: str) -> dict[str, object]:
    """The state of an optimiser that has not made a step: the donor's settings, no history."""
    groups = table(donor, name).get("param_groups")
    try:
        state: dict[str, object] = {"state": {}, "param_groups": groups}
        plain_archive(state, root="archive")
    except TypeError as error:
        raise _odd(donor, name) from error
    if not isinstance(groups, list):
        raise _odd(donor, name)
    return state


def _odd(donor: Sb3Archive, name: str) -> RefusedFileError:
    return RefusedFileError(
        "E0816",
        f"the settings in {name} are not plain numbers",
        where=donor.shown,
        hint="keep the whole state: --optimizer-from NAME",
    )
