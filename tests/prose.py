"""Check the prose of the repository: `python -m tests.prose`, a part of `make lint`.

It reads docstrings, comments, errors and help texts of Python files, Markdown files, and the
comments and messages of other text files.
`WORDS` has a row for each phrase that makes readers look twice. Sentences of more than 20 words
are errors too, except in tests, where `--long` lists them.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONGEST = 20

# Phrase (a regular expression), what to write instead, why.
WORDS = (
    # Clauses in the place of nouns.
    (r"^(?:What|Who|That of|Those of|That which)\b(?!.*\?$)", "the noun", "a clause hides it"),
    (r"^Such\b", "the noun", "readers must look back for what it points to"),
    (r"\b(?:that|those) of\b", "the noun again", "readers must look back for it"),
    (r"\bof (?:ours|yours|theirs)\b", "our ..., your ..., their ...", "one word says it"),
    (r"\bthat you have\b", "your ..., other ..., existing ...", "one word says it"),
    (r"(?<!--)\bwhat\b(?! can 8 learned)(?!.*\?$)", "the noun", "a clause hides it"),
    (r"\bfor who\b|\bwho can\b.*\bshould\b|\bwhoever\b", "if you ...", "address the reader"),
    (r"\bas [\w' ]+ ha(?:s|ve) (?:it|them)\b", "as in ...", "one word says it"),
    (r"\b(?:as|than|like|and|with|in|by) (?:ours|theirs|yours)\b", "the noun", "name it"),
    (r"\b(?:is|are) none of\b", "is not one of", "`none of` counts, it does not compare"),
    (r"\bsuch as\b.*\bsuch as\b", "one list", "two lists of examples hide the fact"),
    # Everyday words in the place of terms, which people search for.
    (
        r"\b(?:is|are|was|be|called) right\b|\bright (?:of|on|for) (?:the|its|[\d{])",
        "top-1 accuracy",
        "term",
    ),
    (r"\bby heart\b", "overfit, training accuracy", "term"),
    (
        r"\b(?:\d+|one|two|three|four|few|short|same|more) passes\b(?! \w+ (?:memory|it)\b)"
        r"|\bpass(?:es)? over (?:\{|[\d,]+|the|those|small) ?\w* ?(?:training )?"
        r"(?:images|clips|videos|data)",
        "epochs",
        "term",
    ),
    (r"\bfaster times\b|\btimes less time\b", "speedup", "term"),
    (r"\b(?:images|clips|videos|requests|frames) a second\b", "... per second", "unit"),
    (r"\bmultiply-adds an? (?:image|clip)\b", "multiply-adds per image", "unit"),
    (r"\bmillion weights\b", "million parameters", "term"),
    (r"\bthe processor\b", "the CPU", "term"),
    (r"\bhandful of\b", "a few, or the number", "a number says more"),
    (r"\blooks? at (?:a|the) (?:picture|image)\b", "processes an image", "models do not look"),
    (r"\b(?:the|a|takes?) tour\b", "demo", "term"),
    (r"\bbroken off\b", "interrupted", "term"),
    (r"\bpassed over\b", "skipped", "term"),
    # Idioms that are not English.
    (r"\bstands? (?:beside|behind|before|in|on|at)\b", "is next to, is in", "things do not stand"),
    (r"\bbeside\b", "next to, with, compared with", "rare word with two meanings"),
    (r"\bin the places? of\b", "instead of", "shorter"),
    (r"\bbut for\b", "except for", "reads as `however`"),
    (r"\bnothing (?:says|tells|names)\b", "does not state", "say who does not state it"),
    (r"\bwhat to do with it\b", "the unsupported value", "say what is unsupported"),
    (r"\bat the most\b", "at most", "shorter"),
    (r"\bthat there (?:is|are)\b(?! an? )", "available, existing", "one word says it"),
    (r"\bmend(?:s|ed)?\b", "fix", "rare word"),
    (r"\banew\b", "again", "rare word"),
    (r"\b(?:goes|go|went) on\b", "continues", "shorter"),
    (r"\bas (?:well|such) as those\b", "and", "shorter"),
    (r"\bthat ships?\b", "included, shipped", "one word says it"),
    (r"\bof whom\b|\bwhich of all\b", "the noun", "readers must look back for it"),
)

# Names of tests read test_<subject>_<condition>_<result>: a subject is no article, no clause and no
# verb, and one or two words have no room for a result.
NO_SUBJECT = re.compile(
    r"test_(?:a|an|the|it|its|what|who|which|that|those|such|no|of|to|on|in|by|with|without|is|as"
    r"|each|every|all|only|refuses|equals|starts|against|there)_|test_[a-z0-9]+(?:_[a-z0-9]+)?$"
)

# Wording of an error, which may change: four plain words in a row.
SENTENCE = re.compile(r"(?<![\w'`./=-])[a-z]+(?: [a-z]+){3}(?![\w'`=/(-])")
MESSAGE = re.compile(r"str\((?:error|\w+\.(?:value|exception))\)$")


@dataclass(frozen=True)
class Unit:
    """A piece of prose that begins with a sentence: a paragraph, an item, a cell, a comment."""

    line: int
    text: str


def check_text(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield `(found, instead, reason)` of every phrase of a unit that `WORDS` has."""
    plain = re.sub(r"``.+?``|`[^`\n]*`", "`x`", " ".join(text.split()))
    parts = [re.sub(r"^\{?[\w.]+\}?: (?=[A-Z])|^\[", "", part) for part in sentences(plain)]
    for sentence in parts:
        for pattern, instead, reason in WORDS:
            flags = 0 if pattern.startswith("^") else re.IGNORECASE
            if found := re.search(pattern, sentence, flags):
                yield found[0][:60], instead, reason


def sentences(text: str) -> list[str]:
    """Split a unit into its sentences."""
    text = re.sub(r"\b(et al|e\.g|i\.e|vs|cf|Fig|Sec|No)\.", r"\1", text)
    return [part for part in re.split(r"(?<=[.!?])[\"')*]*\s+", text.strip()) if part]


def too_long(text: str) -> Iterator[tuple[str, int]]:
    """Yield the opening and the length of each sentence that is too long; numbers do not count."""
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(text.split()))
    plain = re.sub(r"``.+?``|`[^`\n]*`", "x", plain)
    for sentence in sentences(plain):
        words = [word for word in sentence.split() if re.search(r"[^\W\d]", word)]
        if len(words) > LONGEST:
            yield " ".join(words[:6]), len(words)


def markdown_units(source: str) -> Iterator[Unit]:
    """Yield headings, paragraphs, items and cells, without blocks of code."""
    paragraph: list[str] = []
    begun = 0
    fenced = False
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        bare = line.strip()
        fence = bare.startswith(("```", "~~~"))
        starts = bool(re.match(r"[*+-] |\d+\. |#+ |>", bare))
        table = bare.startswith("|")
        if (fence or fenced or not bare or starts or table) and paragraph:
            yield Unit(begun, " ".join(paragraph))
            paragraph = []
        if fence:
            fenced = not fenced
        elif table and not fenced:
            for cell in bare.strip("|").split("|"):
                if cell.strip():
                    yield Unit(number, cell.strip())
        elif bare and not fenced:
            if not paragraph:
                begun = number
            paragraph.append(re.sub(r"^(?:[*+-]|\d+\.|#+|>) +", "", bare) if starts else bare)
            if bare.startswith("#"):  # the next line begins a paragraph
                yield Unit(begun, paragraph.pop())
        elif fenced and not fence:
            yield from (Unit(number, unit.text) for unit in comment_units(line))


def _docstring_units(line: int, text: str) -> Iterator[Unit]:
    """Yield paragraphs and the entries of `Args:` and the like, without examples."""
    lines = ["" if re.match(r"\s*(?:>>>|\.\.\. )", found) else found for found in text.splitlines()]
    paragraph: list[str] = []
    begun = line
    for number, found in enumerate([*lines, ""], start=line):
        entry = re.match(r"\s+(?:\*{0,2}[\w.]+(?: \([^)]*\))?|`[^`]+`): (.*)", found)
        title = re.match(r"\s*(?:Args|Returns|Raises|Attributes|Example|Yields|Note)s?:$", found)
        if (not found.strip() or entry or title) and paragraph:
            yield Unit(begun, " ".join(paragraph))
            paragraph = []
        if found.strip() and not title:
            if not paragraph:
                begun = number
            paragraph.append(entry[1] if entry else found.strip())


def comment_units(source: str) -> Iterator[Unit]:
    """Yield comments of any language that begins them with `#`, and messages of `echo`.

    Comments on whole lines in a row are one unit.
    """
    begun, paragraph = 0, ""
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        whole, rest = re.match(r"\s*#+!? *(.*)", line), re.search(r"\s#+ +(.*)", line)
        if whole and whole[1]:
            begun, paragraph = begun or number, f"{paragraph} {whole[1]}"
        elif paragraph:
            yield Unit(begun, paragraph)
            begun, paragraph = 0, ""
        if not whole and rest:
            yield Unit(number, rest[1])
        elif echo := re.match(r"\s*@?echo \"(.*)\"", line):
            yield Unit(number, echo[1])


def python_units(source: str) -> Iterator[Unit]:
    """Yield docstrings, comments and strings of more than one word."""
    code = source
    if re.search(r"^# %% \[markdown\]", source, re.MULTILINE):  # a notebook
        code = ""
        for cell in re.split(r"^(?=# %%)", source, flags=re.MULTILINE):
            line, lines = code.count("\n"), cell.count("\n")
            if cell.startswith("# %% [markdown]"):
                text = re.sub(r"^# ?(?:%%.*)?", "", cell, flags=re.MULTILINE)
                yield from (Unit(line + unit.line, unit.text) for unit in markdown_units(text))
            code += "\n" * lines if cell.startswith("# %% [markdown]") else cell
    yield from comment_units(code)
    tree = ast.parse(source)
    parts = {
        id(value)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for value in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = (x.value if isinstance(x, ast.Constant) else "{}" for x in node.values)
            text = "".join(str(value) for value in values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in parts:
                continue
            text = node.value
        else:
            continue
        if len(text.split()) > 1:
            yield from _docstring_units(node.lineno, text)


def test_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of each test whose name has no subject or no result."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and NO_SUBJECT.match(node.name):
            yield node.lineno, node.name


def sentence_patterns(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and words of each expected message that quotes a sentence of an error.

    Expected messages are the patterns of `match=`, the strings before `in str(...)`, the arguments
    of `refused`, and the tables of a test whose `match=` is an argument.
    """
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        expected: list[ast.AST] = []
        tables = [x for x in function.decorator_list if "parametrize" in ast.unparse(x)]
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                matches = [word.value for word in node.keywords if word.arg == "match"]
                named = isinstance(node.func, ast.Name) and node.func.id.endswith("refused")
                expected += [*matches, *(node.args if named else ())]
                if named or any(not isinstance(match, ast.Constant) for match in matches):
                    expected += tables
            elif isinstance(node, ast.Compare) and MESSAGE.match(ast.unparse(node.comparators[0])):
                expected += [node.left, *tables]
        strings = {
            (text.lineno, text.value)
            for part in expected
            for text in ast.walk(part)
            if isinstance(text, ast.Constant) and isinstance(text.value, str)
        }
        for line, text in sorted(strings):
            if found := SENTENCE.search(text):
                yield line, found[0]


def files() -> list[Path]:
    """Return the files with prose."""
    folders = ("benchmarks", "docs", "keras_tokenlearner", "notebooks", "tests")
    found = [
        *(
            ROOT / name
            for name in ("Makefile", "pyproject.toml", ".ci/run", ".pre-commit-config.yaml")
        ),
        *ROOT.glob(".github/**/*.[my][dm]*"),
        *ROOT.glob("docs/deployment/*"),
        *ROOT.glob("*.md"),
        *(x for name in folders for x in (ROOT / name).rglob("*.[pm][yd]")),
    ]
    own = {ROOT / "tests/prose.py", ROOT / "tests/test_prose.py"}  # they quote the phrases
    return sorted(path for path in found if path not in own)


def findings(path: Path, long: bool = False) -> Iterator[str]:
    """Yield a line for each fault of a file."""
    source = path.read_text()
    place = path.relative_to(ROOT)
    markdown = path.suffix == ".md"
    readers = {".md": markdown_units, ".py": python_units}
    for unit in readers.get(path.suffix, comment_units)(source):
        for found, instead, reason in check_text(unit.text):
            yield f"{place}:{unit.line}: '{found}': write {instead} ({reason})"
        if long or place.parts[0] != "tests":  # tests contain programs as strings
            for opening, count in too_long(unit.text):
                yield f"{place}:{unit.line}: '{opening} ...' has {count} words, at most {LONGEST}"
    if place.parts[0] == "tests" and not markdown:
        for line, words in sentence_patterns(source):
            yield f"{place}:{line}: '{words}': match the argument, value or file of the error"
    if path.name.startswith("test_"):
        for line, name in test_names(source):
            yield f"{place}:{line}: {name}: write test_<subject>_<condition>_<result>"


def main(arguments: list[str]) -> int:
    """Print the faults of the files, or of the paths that `arguments` name; return their number."""
    long = "--long" in arguments
    named = [argument for argument in arguments if not argument.startswith("-")]
    count = 0
    for path in files():
        place = str(path.relative_to(ROOT))
        if not named or place.startswith(tuple(named)):
            for line in findings(path, long):
                print(line)
                count += 1
    return count


if __name__ == "__main__":
    sys.exit(bool(main(sys.argv[1:])))
