"""An archive of Stable-Baselines3: a zip whose member policy.pth is what torch.save wrote of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rsoup.errors import RefusedFileError, listing
from rsoup.storage.pickled.pickle_machine import interpret
from rsoup.storage.pickled.torch_zip import read_torch_archive
from rsoup.storage.pickled.zip_directory import read_directory
from rsoup.storage.pickled.zip_members import Member, Reader, Window, read_member

POLICY = "policy.pth"
VARIABLES = "pytorch_variables.pth"
OPTIMIZER = "optimizer.pth"  # how the names of all its optimiser states end
SETTINGS = "data"
MAX_MEMBER_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Sb3Archive:
    """The members of an archive `model.save(...)` wrote, by their names, in their order."""

    reader: Reader
    members: Mapping[str, Member]
    shown: str

    @property
    def notes(self) -> tuple[str, ...]:
        """What a soup of policies leaves open."""
        found = [
            "a policy of Stable-Baselines3: statistics of observations (VecNormalize) lie outside of it, and a soup "
            "is one only if they were the same for all"
        ]
        if VARIABLES in self.members and (names := table(self, VARIABLES)):
            found.append(
                f"{listing(list(map(str, names)))} in {VARIABLES} is not mixed; a soup has the first ingredient's"
            )
        return tuple(found)

    @property
    def optimizers(self) -> list[str]:
        """The names of the members that hold an optimiser's state."""
        return [name for name in self.members if name.endswith(OPTIMIZER)]

    def window(self, name: str) -> Window:
        """A stored member as a reader of its own. Raises RefusedFileError E0816 where it is compressed."""
        member = self.members[name]
        if not member.stored:
            raise RefusedFileError(
                "E0816",
                f"member '{name}' is compressed; Stable-Baselines3 stores it as it is",
                where=self.shown,
                hint="load it with Stable-Baselines3 and save it again",
            )
        return Window(self.reader, member.begin, member.size)

    def content(self, name: str, limit: int = MAX_MEMBER_BYTES) -> bytes:
        """The bytes of a member of at most `limit` bytes, its checksum compared."""
        return read_member(self.reader, self.members[name], limit, self.shown)


def table(archive: Sb3Archive, name: str) -> dict[object, object]:
    """The table that a member written by torch.save holds, its tensors as inert descriptions; {} for another value."""
    window = archive.window(name)
    shown = f"{archive.shown}/{name}"
    program = read_torch_archive(window, shown).members["data.pkl"]
    value, _ = interpret(
        read_member(window, program, MAX_MEMBER_BYTES, shown), shown, persistent=lambda saved: saved
    )
    return value if isinstance(value, dict) else {}


def looks_like_sb3(reader: Reader, shown: str) -> bool:
    """Whether a zip archive is one of Stable-Baselines3. Raises RefusedFileError E0816 for a broken archive."""
    return {POLICY, SETTINGS} <= read_directory(reader, shown).keys()


def read_sb3(reader: Reader, shown: str) -> Sb3Archive:
    """The archive, its directory checked. Raises RefusedFileError E0816."""
    return Sb3Archive(reader, read_directory(reader, shown), shown)
