"""Which line of Python an instruction comes from."""

import os
import re
import sysconfig
from typing import NamedTuple

from planning.hlo import Module

_ENTRY = re.compile(r"(\d+) (?:\"(.*)\"|\{(.*)\})$")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")
_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_FRAME = re.compile(r"stack_frame_id=(\d+)")
_LINE = re.compile(r'source_file="([^"]*)"(?: source_line=(\d+))?')
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")})


class Source(NamedTuple):
    """Where an instruction comes from.

    Attributes:
      name: JAX's name of the operation, as "jit(step)/jvp()/while/body/dot_general"; "" where the
        compiler made the instruction of itself.
      lines: "file:line" of the calls that led to it, innermost first; those in installed libraries
        are left out, and files below the working directory are named from there.
    """

    name: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return self.lines[0] if self.lines else self.name


class Sources:
    """The sources of a program's instructions."""

    def __init__(self, module: Module) -> None:
        """Reads the tables that a program's text begins with, where it has them."""
        self._tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
        current = ""
        for line in module.head:
            if line in _TABLES:
                current = line
            elif current and (found := _ENTRY.match(line)):
                self._tables[current][int(found[1])] = found[2] or found[3]

    def of(self, attributes: str) -> Source:
        """The source that an instruction's attributes name."""
        name = _NAME.search(attributes)
        frame, line = _FRAME.search(attributes), _LINE.search(attributes)
        lines: list[str] = []
        if frame:
            lines = self._stack(int(frame[1]))
        elif line:
            lines = [place] if (place := _place(line[1], line[2] or "0")) else []
        return Source(re.sub(r"\\(.)", r"\1", name[1]) if name else "", tuple(lines))

    def _stack(self, frame: int) -> list[str]:
        places: list[str] = []
        while frame and (text := self._tables["StackFrames"].get(frame)):
            location = self._tables["FileLocations"].get(_number(text, "file_location_id"), "")
            file = self._tables["FileNames"].get(_number(location, "file_name_id"), "")
            place = _place(file, str(_number(location, "line")))
            if place and place not in places:
                places.append(place)
            frame = _number(text, "parent_frame_id") - 1  # it is written one higher than it is
        return places


def _number(text: str, key: str) -> int:
    found = re.search(rf"\b{key}=(\d+)", text)
    return int(found[1]) if found else 0


def _place(file: str, line: str) -> str:
    """File and line, "" for those of libraries."""
    if not file or file.startswith(_LIBRARIES) or "site-packages" in file:
        return ""
    here = os.getcwd() + os.sep
    return f"{file.removeprefix(here)}:{line}"
