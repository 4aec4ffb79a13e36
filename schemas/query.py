"""The query language: parse, check, print, and turn into SQL with parameters only.

`char='fox' and stage in ('fd','bf') and opp_char <> char and n_frames between 6000 and 9000`

    or    = and { "or" and }            not  = "not" not | "(" or ")" | "true" | "false" | test
    and   = not { "and" not }           test = COLUMN [OP operand | [not] in/between/like | is null]

The tree is normal as soon as it is built (names resolved, operands unique and sorted, `not` pushed
into comparisons), so equal trees print equal text. A date without all its parts means the whole
year, month, day or minute: `date = '2023-04-01'` is that day, `date <= '2023'` includes 2023 and
`date > '2023'` begins with 2024. Nulls behave as in DuckDB's WHERE. What can be named, and how its
values are typed, stands in schemas.filters; SQL never holds the user's text.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from schemas import filters
from schemas.errors import QueryError
from schemas.filters import Constant, Filter, Meaning, Value

MAX_CHARS = 4096
MAX_DEPTH = 64

FLIPPED = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
NEGATED = {"=": "<>", "<>": "=", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}


@dataclass(frozen=True)
class Const:
    """`true` (also the empty query) or `false`."""

    value: bool


@dataclass(frozen=True)
class Compare:
    """A column against a value of its type."""

    column: str
    op: str
    value: Value


@dataclass(frozen=True)
class CompareColumns:
    """A column against a column; `left` is the smaller name."""

    left: str
    op: str
    right: str


@dataclass(frozen=True)
class In:
    """A column against two or more values, sorted as they print."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Between:
    """A column between two values, both included."""

    column: str
    low: Value
    high: Value


@dataclass(frozen=True)
class Like:
    """A text column against a pattern of `%` and `_`."""

    column: str
    pattern: str


@dataclass(frozen=True)
class IsNull:
    """A column that the replay does not tell."""

    column: str


@dataclass(frozen=True)
class Not:
    """What cannot be negated by another operator."""

    term: "Query"


@dataclass(frozen=True)
class And:
    """Two or more terms, none of them an And, sorted as they print."""

    terms: tuple["Query", ...]


@dataclass(frozen=True)
class Or:
    """Two or more terms, none of them an Or, sorted as they print."""

    terms: tuple["Query", ...]


Query = Const | Compare | CompareColumns | In | Between | Like | IsNull | Not | And | Or


# --- building: every tree is normal -------------------------------------------------------------


def _combined(kind: type[And] | type[Or], terms: Iterable[Query]) -> Query:
    """The terms under one And or Or: flat, unique, sorted, without what cannot matter."""
    neutral = Const(kind is And)
    flat: dict[Query, None] = {}
    for term in terms:
        flat.update(dict.fromkeys(term.terms if isinstance(term, kind) else (term,)))
    flat.pop(neutral, None)
    if Const(kind is not And) in flat:
        return Const(kind is not And)
    if len(flat) < 2:
        return next(iter(flat), neutral)
    return kind(tuple(sorted(flat, key=canonical)))


def _negated(term: Query) -> Query:
    match term:
        case Const(value):
            return Const(not value)
        case Not(inner):
            return inner
        case Compare(column, _, bool() as value):
            return Compare(column, "=", not value)
        case Compare(column, op, value):
            return Compare(column, NEGATED[op], value)
        case CompareColumns(left, op, right):
            return CompareColumns(left, NEGATED[op], right)
    return Not(term)


def _compared(row: Filter, op: str, meant: Meaning) -> Query:
    value, end = meant.first, meant.end
    if isinstance(value, bool):  # one form for `won`, `won = true` and `won <> false`
        return Compare(row.name, "=", value == (op == "="))
    if end is None:
        return Compare(row.name, op, value)
    # a stretch, as a day: inside it, outside, or on one side of it
    from_first, before_end = Compare(row.name, ">=", value), Compare(row.name, "<", end)
    if op == "=":
        return _combined(And, (from_first, before_end))
    if op == "<>":
        return _combined(Or, (_negated(from_first), _negated(before_end)))
    return {
        "<": _negated(from_first), "<=": before_end, ">": _negated(before_end), ">=": from_first,
    }[op]  # fmt: skip


def _one_of(row: Filter, meanings: Iterable[Meaning]) -> Query:
    unique = sorted(set(meanings), key=lambda meant: filters.show(row, meant.first))
    values = tuple(meant.first for meant in unique if meant.end is None)
    stretches = [_compared(row, "=", meant) for meant in unique if len(values) < 2 or meant.end]
    return _combined(Or, [In(row.name, values), *stretches] if len(values) > 1 else stretches)


def _between(row: Filter, low: Meaning, high: Meaning) -> Query:
    if high.end is None:
        return Between(row.name, low.first, high.first)
    return _combined(And, (_compared(row, ">=", low), _compared(row, "<=", high)))


def _compared_columns(left: Filter, op: str, right: Filter) -> Query:
    if left.name > right.name:
        left, op, right = right, FLIPPED[op], left
    return CompareColumns(left.name, op, right.name)


# --- words --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Token:
    form: str  # word, text, number, mark, end
    text: str
    position: int


_LEXER = re.compile(
    r"""\s*(?:
      (?P<number> [+-]?(?:\d+(?:\.\d*)*|\.\d+) (?![A-Za-z_]))  # 3.14.0 is a version
    | (?P<word>   [A-Za-z_][A-Za-z0-9_]*)
    | (?P<text>   '(?:[^'\x00-\x1f\ud800-\udfff]|'')*')
    | (?P<mark>   <>|!=|<=|>=|==|[=<>(),])
    | (?P<end>    \Z)
    )""",
    re.VERBOSE,
)
_SPELLINGS = {"==": "=", "!=": "<>"}
_SQL_WORDS = {"select", "with", "from", "where", "case", "exists", "cast", "distinct", "any", "all"}
_KEYWORDS = {"and", "or", "not", "in", "between", "like", "is", "null", "true", "false"}
_LEX_HINTS = {
    "'": "a text ends with the quote that it starts with",
    '"': "text stands in single quotes: char='fox'",
    ";": "a query is one condition",
}


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while True:
        match = _LEXER.match(text, at)
        if not match or match.lastgroup is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = _LEX_HINTS.get(text[at], "a query is a condition such as char='fox'")
            raise QueryError(f"unexpected '{text[at]}' at character {at + 1}", hint, position=at)
        form, word = match.lastgroup, match.group(match.lastgroup)
        yield _Token(form, _SPELLINGS.get(word, word), match.start(form))
        if form == "end":
            return
        at = match.end()


# --- grammar ------------------------------------------------------------------------------------


class _Parser:
    """One pass over the words; each method reads one rule of the grammar in the module's head."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.depth = 0

    @property
    def next(self) -> _Token:
        return self.tokens[self.at]

    def take(self) -> _Token:
        token = self.next
        self.at += token.form != "end"
        return token

    def accept(self, *words: str) -> str | None:
        """Take the next word or mark if it is one of these."""
        lower = self.next.text.lower()
        if self.next.form in ("word", "mark") and lower in words:
            self.take()
            return lower
        return None

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise self.error(f"expected '{word}'")

    def error(self, expected: str) -> QueryError:
        token = self.next
        found = f"found '{token.text}'" if token.text else "the query ends"
        where = f"at character {token.position + 1}"
        return QueryError(f"{expected}, {found} {where}", _EXAMPLE, position=token.position)

    def either(self) -> Query:
        return self.chain("or", self.both, Or)

    def both(self) -> Query:
        return self.chain("and", self.negation, And)

    def chain(self, word: str, operand: Callable[[], Query], kind: type[And] | type[Or]) -> Query:
        terms = [operand()]
        while self.accept(word):
            terms.append(operand())
        return _combined(kind, terms) if len(terms) > 1 else terms[0]

    def negation(self) -> Query:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"more than {MAX_DEPTH} levels of brackets and not")
        term = self.negation_body()
        self.depth -= 1
        return term

    def negation_body(self) -> Query:
        if self.accept("not"):
            return _negated(self.negation())
        if self.accept("("):
            term = self.either()
            self.expect(")")
            return term
        return self.test()

    def test(self) -> Query:
        if self.next.form in ("text", "number") or self.next.text.lower() in ("true", "false"):
            return self.constant_first()
        row = self.column()
        if op := self.accept(*FLIPPED):
            return self.comparison(row, op)
        if self.accept("is"):
            return _negated(self.null(row)) if self.accept("not") else self.null(row)
        if self.accept("not"):
            return _negated(self.membership(row))
        if self.next.text.lower() in ("in", "between", "like"):
            return self.membership(row)
        if row.kind == "bool":
            return Compare(row.name, "=", True)
        raise self.error(f"expected a comparison after '{row.name}'")

    def null(self, row: Filter) -> Query:
        self.expect("null")
        return IsNull(row.name)

    def column(self) -> Filter:
        token = self.next
        if token.form != "word" or token.text.lower() in _KEYWORDS:
            raise self.error("expected a column")
        self.take()
        if self.next.text == "(" or token.text.lower() in _SQL_WORDS:
            message = f"'{token.text}' at character {token.position + 1} is not understood"
            hint = "a query has columns, values and comparisons only"
            raise QueryError(message, hint, position=token.position)
        return filters.find(token.text, token.position)

    def comparison(self, row: Filter, op: str) -> Query:
        token = self.next
        _check_order(row, op, token.position)
        if token.form == "word" and token.text.lower() not in _KEYWORDS:
            return self.columns(row, op, self.column(), token.position)
        return _compared(row, op, self.value(row))

    def columns(self, row: Filter, op: str, other: Filter, position: int) -> Query:
        if filters.KINDS[row.kind].group != filters.KINDS[other.kind].group:
            message = f"{row.name} and {other.name} cannot be compared"
            raise QueryError(message, "their types differ", position=position)
        _check_order(other, op, position)
        return _compared_columns(row, op, other)

    def constant_first(self) -> Query:
        """`3600 < n_frames`, kept as `n_frames > 3600`; or `true` alone."""
        constant = self.constant()
        op = self.accept(*FLIPPED)
        if not op and constant.form == "bool":
            return Const(constant.text == "true")
        if not op:
            raise self.error("expected a comparison")
        row = self.column()
        _check_order(row, op, constant.position)
        return _compared(row, FLIPPED[op], filters.read(row, constant))

    def membership(self, row: Filter) -> Query:
        if self.accept("in"):
            return _one_of(row, self.values(row))
        if self.accept("like"):
            return self.like(row)
        self.expect("between")
        _check_order(row, "between", self.next.position)
        low = self.value(row)
        self.expect("and")
        return _between(row, low, self.value(row))

    def like(self, row: Filter) -> Query:
        pattern = self.constant()
        if filters.KINDS[row.kind].group != "text" or pattern.form != "text":
            message = f"{row.name} cannot be compared by like"
            raise QueryError(message, "like is for text", position=pattern.position)
        return Like(row.name, filters.pattern(row, pattern.text))

    def values(self, row: Filter) -> Iterator[Meaning]:
        self.expect("(")
        yield self.value(row)
        while self.accept(","):
            yield self.value(row)
        self.expect(")")

    def value(self, row: Filter) -> Meaning:
        return filters.read(row, self.constant())

    def constant(self) -> Constant:
        token = self.next
        if token.form == "text":
            return Constant("text", self.take().text[1:-1].replace("''", "'"), token.position)
        if token.form == "number":
            return Constant("number", self.take().text, token.position)
        if word := self.accept("true", "false"):
            return Constant("bool", word, token.position)
        if token.text.lower() == "null":
            hint = "use 'is null' or 'is not null'"
            raise QueryError("nothing equals null", hint, position=token.position)
        raise self.error("expected a value")


def _check_order(row: Filter, op: str, position: int) -> None:
    if op not in ("=", "<>") and not filters.KINDS[row.kind].is_ordered:
        message = f"{row.name} has no order, '{op}' cannot be used"
        raise QueryError(message, "use =, <> or in", position=position)


_EXAMPLE = "for example char='fox' and n_frames > 3600"


def parse(text: str) -> Query:
    """Read a query; empty text means everything.

    Raises QueryError, or UnknownNameError for a name that is not known, with the word's position.
    """
    if len(text) > MAX_CHARS:
        raise QueryError(f"the query is longer than {MAX_CHARS} characters", position=MAX_CHARS)
    parser = _Parser(text)
    if parser.next.form == "end":
        return Const(True)
    query = parser.either()
    if parser.next.form != "end":
        raise parser.error("expected 'and', 'or' or the end")
    # The written-out form must be a query as well: aliases grow.
    if len(canonical(query)) > MAX_CHARS:
        raise QueryError(f"the query is longer than {MAX_CHARS} characters when written out")
    return query


# --- writing ------------------------------------------------------------------------------------


def canonical(query: Query) -> str:
    """The query's one spelling: lower case, names resolved, operands sorted."""
    return _write(query, lambda name: name, lambda name, v: filters.show(filters.FILTERS[name], v))


def to_sql(query: Query) -> tuple[str, list[Value]]:
    """The query as a condition over `perspectives` with `?` for each value, and the values."""
    values: list[Value] = []

    def parameter(_: str, value: Value) -> str:
        values.append(value)
        return "?"

    return _write(query, lambda name: filters.FILTERS[name].sql, parameter), values


def _write(query: Query, name: Callable[[str], str], value: Callable[[str, Value], str]) -> str:
    """Text of a query; `name` and `value` write the leaves, and are called in text order."""

    def write(node: Query, negation: str = "") -> str:
        match node:
            case Const(truth):
                return str(truth).lower()
            case Compare(column, op, it):
                return f"{name(column)} {op} {value(column, it)}"
            case CompareColumns(left, op, right):
                return f"{name(left)} {op} {name(right)}"
            case In(column, its):
                return f"{name(column)} {negation}in ({', '.join(value(column, i) for i in its)})"
            case Between(column, low, high):
                bounds = f"{value(column, low)} and {value(column, high)}"
                return f"{name(column)} {negation}between {bounds}"
            case Like(column, pattern):
                return f"{name(column)} {negation}like {value(column, pattern)}"
            case IsNull(column):
                return f"{name(column)} is {negation}null"
            case Not(And() | Or() as group):
                return f"not ({write(group)})"
            case Not(term):
                return write(term, "not ")
            case And(terms):
                return " and ".join(
                    f"({write(t)})" if isinstance(t, Or) else write(t) for t in terms
                )
            case Or(terms):
                return " or ".join(write(t) for t in terms)

    return write(query)
