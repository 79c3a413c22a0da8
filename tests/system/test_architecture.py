"""The shape of the package: thirteen rooms in the order a message takes, and who may import whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gateway"

# A module imports from its own room and from those above it, also where only a type checker reads.
ROOMS = (
    "protocol",
    "config",
    "connections",
    "redis",
    "backplane",
    "presence",
    "access",
    "operations",
    "application",
    "node",
    "server",
    "client",
    "cli",
)
# What stands beside the rooms: what every one of them may import, and what imports them for others.
FIRST, LAST = ("errors", "version"), ("__init__", "__main__")

# A library that does I/O, and the only rooms that load it.
OWNERS = {
    "aiohttp": {"access", "server", "client"},
    "aiohttp_jinja2": {"server"},
    "redis": {"redis"},
    "hiredis": {"redis"},
}

# Plain data and rules: tested without a loop, a log or a clock.
PURE = (
    "protocol",
    "access.keys",
    "access.permission",
    "access.request_heads",
    "connections.hub",
    "connections.limits",
    "connections.outbox",
    "node.progress",
    "operations.search.connections",
    "operations.search.names",
    "operations.search.page",
)
IMPURE_IMPORTS = {"aiohttp", "asyncio", "datetime", "logging", "redis", "socket", "threading", "time"}

MODULE_LINES = 400
FUNCTION_LINES = 40

# Words that say nothing about what is inside, or name something we have another word for.
VAGUE = {"base", "common", "data", "group", "helper", "info", "manager", "room", "topic", "util"}
VAGUE_HERE = {"backplane": {"topic"}}


class Module:
    """One file of the package, parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        self.room = self.name.partition(".")[0]
        self.text = path.read_text()
        self.tree = ast.parse(self.text)

    def imports(self, *, typing: bool = True) -> Iterator[tuple[int, str]]:
        """Yield line and full name of everything imported, wherever in the file; or only at run time."""
        package = ["gateway", *self.name.split(".")[:-1]]
        for node in ast.walk(self.tree) if typing else at_run_time(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                parents = package[: len(package) + 1 - node.level] if node.level else []
                origin = ".".join([*parents, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield node.lineno, f"{origin}.{alias.name}"

    def own_imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and name of the modules of ours that are imported."""
        for line, name in self.imports():
            first, _, rest = name.partition(".")
            if first == "gateway":
                yield line, file_of(rest)

    def at(self, line: int, what: str) -> str:
        return f"{self.path.relative_to(ROOT)}:{line}: {what}"


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, but not what only a type checker reads."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from at_run_time(child)


def file_of(name: str) -> str:
    """Return the module that defines a name below `gateway`: itself, or the nearest package around it."""
    while name:
        for module in (name, f"{name}.__init__"):
            if module in BY_NAME:
                return module
        name = name.rpartition(".")[0]
    return "__init__"


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py")) if "node_modules" not in path.parts]
BY_NAME = {module.name: module for module in MODULES}
PLACE = {name: place for place, name in enumerate((*FIRST, *ROOMS, *LAST))}

every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
every_room = pytest.mark.parametrize("room", ROOMS)
pure_modules = pytest.mark.parametrize(
    "module",
    [module for module in MODULES if module.name in PURE or module.room in PURE],
    ids=lambda module: module.name,
)


def test_the_rooms_are_these() -> None:
    """Who opens the package sees them, and beside them no more than can be told at a glance."""
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert (len(ROOMS), folders) == (13, set(ROOMS))
    assert {path.stem for path in PACKAGE.glob("*.py")} == {*FIRST, *LAST}


@every_room
def test_a_room_says_what_it_is_for(room: str) -> None:
    """In one sentence, before anything else; and it names what it holds, or what it hands on."""
    init = BY_NAME[f"{room}.__init__"]
    sentence = (ast.get_docstring(init.tree) or "").partition("\n")[0]
    assert re.fullmatch(r"[A-Z][^.]*(\.\w[^.]*)*\.", sentence), init.at(1, f"no single sentence: {sentence!r}")
    assert "__all__" in init.text, init.at(1, "no __all__")


@every_module
def test_imports_go_one_way(module: Module) -> None:
    """A module imports from its own room or from one above it, for a type checker, too."""
    wrong = [
        module.at(line, f"{module.room} may not import {name}")
        for line, name in module.own_imports()
        if (target := name.partition(".")[0]) != module.room and PLACE[target] > PLACE[module.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other() -> None:
    """Neither directly nor in a circle: each can be read before those that need it."""
    left = {module.name: {name for _, name in module.own_imports()} - {module.name} for module in MODULES}
    while free := {name for name, needed in left.items() if not needed & left.keys() or name not in _needed(left)}:
        for name in free:
            del left[name]
    circles = {name: sorted(needed & left.keys()) for name, needed in left.items()}
    assert not circles, "\n".join(f"{name} -> {', '.join(needed)}" for name, needed in circles.items())


def _needed(imports: dict[str, set[str]]) -> set[str]:
    return set().union(*imports.values())


def test_scripts_and_tests_import_in_no_circle() -> None:
    """No file beside the package imports, by way of others or for its types, what imports it."""
    trees = {}
    for path in sorted([*(ROOT / "scripts").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[1:] if parts[0] == "scripts" else parts)  # scripts/ is where Python looks, too
        trees[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    imports = {name: {*_files_among(trees, name, tree)} - {name} for name, tree in trees.items()}
    assert sum(map(len, imports.values())) > len(imports)  # else it looks at nothing
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail("a circle, each imported by the next: " + ", ".join(error.args[1]))


def _files_among(names: Container[str], name: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a file imports, for its types included, as far as it is one of these files."""
    for node in ast.walk(tree):
        origins = []
        if isinstance(node, ast.Import):
            origins = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[: -node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            origins = [f"{origin}.{alias.name}" for alias in node.names]
        for each in origins:
            if found := next((part for part in (each, each.rpartition(".")[0]) if part in names), ""):
                yield found


@every_module
def test_a_library_stays_with_its_owners(module: Module) -> None:
    """Only the rooms named in OWNERS know a library that does I/O; others may name its types."""
    wrong = [
        module.at(line, f"{name} is for {sorted(OWNERS[library])} only")
        for line, name in module.imports(typing=False)
        if (library := name.partition(".")[0]) in OWNERS and module.room not in OWNERS[library]
    ]
    assert not wrong, "\n".join(wrong)


@every_module
def test_the_environment_is_read_in_config_only(module: Module) -> None:
    """Every other module is told its settings."""
    if module.room == "config":
        return
    readers = {"environ", "environb", "getenv", "getenvb"}
    wrong = [
        module.at(node.lineno, f"os.{node.attr}")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute) and node.attr in readers and ast.unparse(node.value) == "os"
    ]
    wrong += [
        module.at(line, name)
        for line, name in module.imports()
        if name.partition(".")[0] == "os" and name.rpartition(".")[2] in readers
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_exist(name: str) -> None:
    """Whoever renames one names it here, too."""
    assert name in BY_NAME or f"{name}.__init__" in BY_NAME


@pure_modules
def test_rules_do_no_io(module: Module) -> None:
    """The pure modules neither wait, nor log, nor look at a clock."""
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef)
    wrong = [module.at(node.lineno, "waits") for node in ast.walk(module.tree) if isinstance(node, waits)]
    wrong += [
        module.at(line, f"imports {name}")
        for line, name in module.imports(typing=False)
        if name.partition(".")[0] in IMPURE_IMPORTS
    ]
    assert not wrong, "\n".join(wrong)


@every_module
def test_arguments_are_not_packed_to_be_unpacked(module: Module) -> None:
    """No `*(a, b)` in a call: one argument a line, by its name where there is one."""
    wrong = [
        module.at(argument.lineno, ast.unparse(argument))
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call)
        for argument in call.args
        if isinstance(argument, ast.Starred) and isinstance(argument.value, ast.Tuple | ast.List)
        if not any(isinstance(each, ast.Starred) for each in argument.value.elts)
    ]
    assert not wrong, "\n".join(wrong)


@every_module
def test_a_module_is_short(module: Module) -> None:
    """A reader can hold a file, and each function in it, in mind."""
    lines = len(module.text.splitlines())
    assert lines <= MODULE_LINES, module.at(lines, f"more than {MODULE_LINES} lines")
    wrong = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                wrong.append(module.at(node.lineno, f"{node.name} has {length} lines of {FUNCTION_LINES}"))
    assert not wrong, "\n".join(wrong)


@every_module
def test_a_module_name_says_something(module: Module) -> None:
    """A file name is one of the words we use, so that the tree can be read."""
    words = {word.removesuffix("s") for word in module.name.replace(".", "_").split("_")}
    vague = words & (VAGUE - VAGUE_HERE.get(module.room, set()))
    assert not vague, f"{module.name}: name it after what it holds, not {sorted(vague)}"


class TestPage:
    """docs/architecture.md, which is what a reader opens first."""

    PAGE = ROOT / "docs" / "architecture.md"

    def test_it_names_the_rooms_in_their_order(self) -> None:
        """Each with its line."""
        assert tuple(re.findall(r"^\| `(\w+)/` \|", self.PAGE.read_text(), re.MULTILINE)) == ROOMS

    def test_every_file_it_names_exists(self) -> None:
        """Told as the package sees it, or from the root of the repository."""
        named = re.findall(r"`((?:\w+/)+(?:[\w.-]+)?|\w+\.py)`", self.PAGE.read_text())
        assert named
        assert [name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()] == []
