"""The shape of the package: what lives where, and who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Container, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gateway"

# Imports point down only: a module may import what stands in a later row, never a neighbour, never back.
LAYERS = (
    ("__init__",),
    ("__main__",),
    ("cli",),
    ("server",),
    ("files", "home", "listener"),
    ("probes",),
    ("admin", "api", "handlers", "loading", "metrics", "schema"),
    ("router", "service"),
    ("node",),
    ("drain",),
    ("reception",),
    ("answers", "commands", "health", "publisher", "reader"),
    ("application", "gateway_commands"),
    ("rights", "starting", "status"),
    ("membership",),
    ("operations",),
    ("access", "conditions", "directory", "history", "journal", "neighbours", "revocations", "visitor"),
    ("journal_store", "observers", "outbound", "vitals"),
    ("delivery", "expiry", "heartbeat", "presence", "remote", "tap", "track", "tracing", "watchdog"),
    ("budget", "fanout", "identity", "search"),
    ("meter",),
    ("backplane", "hub"),
    ("client", "handshake", "http", "origin", "query", "shortcut", "tokens"),
    ("websocket",),
    ("connection", "envelope"),
    ("codec", "limits", "outbox", "redis", "signatures"),
    ("config", "door"),
    ("counters", "doors", "frames", "json_values", "logs", "message", "proxies"),
    ("deflate", "errors", "heads", "inflight", "log_limit", "log_writer", "memory", "version"),
)

# A library that does I/O, and the only modules that know it.
OWNERS = {
    "aiohttp": {
        "admin",
        "api",
        "client",
        "files",
        "handshake",
        "home",
        "http",
        "identity",
        "listener",
        "log_limit",
        "origin",
        "probes",
        "proxies",
        "query",
        "server",
        "shortcut",
    },
    "aiohttp_jinja2": {"admin", "home", "server"},
    "redis": {"backplane", "presence"},
    "hiredis": {"backplane", "presence"},
}

# Plain data and rules: tested without a loop, a log or a clock.
PURE = (
    "access",
    "codec",
    "deflate",
    "envelope",
    "frames",
    "heads",
    "hub",
    "limits",
    "outbox",
    "json_values",
    "track",
    "search.connections",
    "search.names",
    "search.page",
    "signatures",
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
        self.name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        self.layer = self.name.partition(".")[0]
        self.text = path.read_text()
        self.tree = ast.parse(self.text)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield line and full name of everything imported at run time, wherever in the file."""
        package = ["gateway", *self.name.split(".")[:-1]]
        for node in at_run_time(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom):
                parents = package[: len(package) + 1 - node.level] if node.level else []
                origin = ".".join([*parents, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield node.lineno, f"{origin}.{alias.name}"

    def at(self, line: int, what: str) -> str:
        return f"gateway/{self.name.replace('.', '/')}.py:{line}: {what}"


def at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all below it, but not what only a type checker reads."""
    yield node
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        children: list[ast.AST] = [*node.orelse]
    else:
        children = [*ast.iter_child_nodes(node)]
    for child in children:
        yield from at_run_time(child)


MODULES = [Module(path) for path in sorted(PACKAGE.rglob("*.py")) if "node_modules" not in path.parts]
ROW = {name: row for row, names in enumerate(LAYERS) for name in names}

every_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
pure_modules = pytest.mark.parametrize(
    "module", [module for module in MODULES if module.name in PURE], ids=lambda module: module.name
)


@every_module
def test_a_module_has_a_place(module: Module) -> None:
    """Every module and package directly under gateway/ stands in the table."""
    assert module.layer in ROW, f"place {module.layer!r} in LAYERS, in the row that tells who may import it"


@every_module
def test_imports_point_down(module: Module) -> None:
    """A module imports from rows below its own, or from its own package."""
    wrong = []
    for line, name in module.imports():
        top, _, rest = name.partition(".")
        if top != "gateway":
            continue
        target = rest.partition(".")[0]
        if target not in ROW:
            wrong.append(module.at(line, f"imports {name}: name the module that defines it"))
        elif target != module.layer and ROW[target] <= ROW.get(module.layer, -1):
            wrong.append(module.at(line, f"{module.layer} may not import {target}"))
    assert not wrong, "\n".join(wrong)


@every_module
def test_a_library_stays_with_its_owners(module: Module) -> None:
    """Only the modules named in OWNERS know a library that does I/O."""
    wrong = [
        module.at(line, f"{name} is for {sorted(OWNERS[library])} only")
        for line, name in module.imports()
        if (library := name.partition(".")[0]) in OWNERS and module.layer not in OWNERS[library]
    ]
    assert not wrong, "\n".join(wrong)


@every_module
def test_the_environment_is_read_in_config_only(module: Module) -> None:
    """Every other module is told its settings."""
    if module.layer == "config":
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


@pure_modules
def test_rules_do_no_io(module: Module) -> None:
    """The pure modules neither wait, nor log, nor look at a clock."""
    waits = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef)
    wrong = [module.at(node.lineno, "waits") for node in ast.walk(module.tree) if isinstance(node, waits)]
    wrong += [
        module.at(line, f"imports {name}")
        for line, name in module.imports()
        if name.partition(".")[0] in IMPURE_IMPORTS
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
    vague = words & (VAGUE - VAGUE_HERE.get(module.layer, set()))
    assert not vague, f"{module.name}: name it after what it holds, not {sorted(vague)}"


def test_scripts_and_tests_import_in_no_circle() -> None:
    """No file beside the package imports, by way of others or for its types, what imports it."""
    root, trees = PACKAGE.parent, {}
    for path in sorted([*(root / "scripts").rglob("*.py"), *(root / "tests").rglob("*.py")]):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[1:] if parts[0] == "scripts" else parts)  # scripts/ is where Python looks, too
        trees[name.removesuffix(".__init__")] = ast.parse(path.read_text())
    imports = {name: {*files_among(trees, name, tree)} - {name} for name, tree in trees.items()}
    assert sum(map(len, imports.values())) > len(imports)  # else it looks at nothing
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail("a circle, each imported by the next: " + ", ".join(error.args[1]))


def files_among(names: Container[str], name: str, tree: ast.Module) -> Iterator[str]:
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
