"""A Dockerfile, read, and performed without Docker: its steps in a directory that stands for the image's root."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Image", "Instruction", "perform", "read"]

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, its continued lines joined and its flags apart."""

    stage: int
    word: str
    flags: tuple[str, ...]
    text: str


def read(path: Path) -> list[Instruction]:
    """Every instruction, in order; `stage` counts the FROMs."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    found, stage = [], -1
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if not line:
            continue
        word, *rest = line.split(" ")
        stage += word == "FROM"
        flags = [part for part in rest if part.startswith("--")] if word in ("COPY", "RUN") else []
        flags = flags[: next((i for i, part in enumerate(rest) if not part.startswith("--")), 0)]
        found.append(Instruction(stage, word, tuple(flags), " ".join(rest[len(flags) :])))
    return found


@dataclass(frozen=True, slots=True)
class Image:
    """What the last stage holds and how it is started."""

    root: Path
    copied: tuple[Path, ...]
    workdir: Path
    environment: dict[str, str]
    entrypoint: tuple[str, ...]
    default: tuple[str, ...]
    healthcheck: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """Of all that was copied into it, without the base image."""
        files = {file for place in self.copied for file in (place.rglob("*") if place.is_dir() else [place])}
        return sum(file.lstat().st_size for file in files)

    def command(self, words: Sequence[str]) -> list[str]:
        """The program found by the image's own PATH, and its arguments."""
        program = shutil.which(words[0], path=self.environment["PATH"])
        assert program is not None, f"{words[0]} is not in the image's PATH"
        return [program, *words[1:]]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in the image's directory, with nothing but the image's environment."""
        return subprocess.run(
            self.command(words), cwd=self.workdir, env=self.environment, capture_output=True, text=True, timeout=120
        )


def perform(dockerfile: Path, root: Path) -> Image:
    """Perform every COPY and RUN below `root`, which stands for `/`; but for apt-get, which would change this machine.

    Where apt-get has brought something, such as `strip`, it must be there already.
    """
    steps = read(dockerfile)
    home = root / "home"
    home.mkdir()
    last, workdir, environment, copied = steps[-1].stage, root, {"HOME": str(home)}, []
    said: dict[str, tuple[str, ...]] = {}
    for step in steps:
        if step.word == "WORKDIR":
            workdir = root / step.text.lstrip("/")
            workdir.mkdir(parents=True, exist_ok=True)
        elif step.word == "COPY":
            *sources, target = step.text.split()
            for source in sources:
                place = _copy(step, source, target, root, workdir)
                if step.stage == last:
                    copied.append(place)
        elif step.word == "RUN" and "apt-get" not in step.text:
            _run(step.text, root, workdir, environment.get("PATH", ""))
        elif step.word == "ENV" and step.stage == last:
            for name, value in re.findall(r"(\w+)=(\S+)", step.text):
                environment[name] = _below(value.replace("$PATH", "/usr/bin:/bin"), root)
        elif step.word in ("ENTRYPOINT", "CMD"):
            said[step.word] = tuple(json.loads(step.text))
        elif step.word == "HEALTHCHECK":
            said[step.word] = tuple(json.loads(step.text.partition("CMD ")[2]))
    return Image(
        root, tuple(copied), workdir, environment, said["ENTRYPOINT"], said["CMD"], said.get("HEALTHCHECK", ())
    )


def _below(text: str, root: Path) -> str:
    """The directories that the Dockerfile makes, as they are called here."""
    return re.sub(r"(?<![\w.])(?=/(opt/venv|app|build)\b)", str(root), text)


def _copy(step: Instruction, source: str, target: str, root: Path, workdir: Path) -> Path:
    place = root / target.lstrip("/") if target.startswith("/") else workdir / target
    if any(flag.startswith("--from=") for flag in step.flags):
        assert source == target and place.exists(), f"COPY {step.text}: the stage before has not made it"
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    if (ROOT / source).is_dir():
        shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(ROOT / source, place)
    return place


def _run(text: str, root: Path, workdir: Path, path: str) -> None:
    path = ":".join((path or str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
    done = subprocess.run(
        ["sh", "-euc", _below(text, root)],
        cwd=workdir,
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"RUN {text}: {done.stdout}{done.stderr}"
