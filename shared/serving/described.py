"""What an OpenAPI document says, as the inside of a page for people.

    tag                    Answers
    route                  GET /quantile   Any quantiles, each with its own certificate.
    how to ask             curl "$URL/quantile?q=0.5&q=0.99"
    parameters, bodies     each with its kind, its limits and its words
    answers                their fields
    errors                 each status with its words, folded

Whatever the document names has an id, and who speaks of it links there.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from shared.serving.commands import Route, example_of, variable
from shared.serving.markup import Markup, element, joined, prose
from shared.serving.shapes import Shapes, given, name_of, words_of

Said = Mapping[str, Any]


class Description:
    def __init__(self, document: Said) -> None:
        self.title, self.version = document["info"]["title"], document["info"]["version"]
        parts = document["components"]
        self._shapes, self._tokens = Shapes(parts["schemas"]), parts.get("securitySchemes", {})
        self._tags = defaultdict[str, list[Route]](list)
        for path, methods in document["paths"].items():
            for method, said in methods.items():
                self._tags[said["tags"][0]].append(Route(path, method, said))

    def contents(self) -> Markup:
        """A list of links, by tag."""
        groups = (
            element("li", _link(tag, f"tag-{tag}"), element("ul", *map(_item, routes)))
            for tag, routes in self._tags.items()
        )
        return element("ul", *groups)

    def requests(self) -> Markup:
        groups = (
            element("section", element("h2", tag, id=f"tag-{tag}"), *map(self._route, routes))
            for tag, routes in self._tags.items()
        )
        return joined(self._asking(), *groups, self._errors())

    def _asking(self) -> Markup:
        """What stands for what in the commands, and which tokens there are."""
        where = "In the commands, `$URL` is the address of this page without `/docs` at its end."
        shown = (
            "Tokens are sent as `Authorization: Bearer TOKEN`; in the commands each is a variable."
        )
        unlocked = "No request asks for a token here: none is set."
        rows = [
            (_code(name, id=f"token-{name}"), _code(f"${variable(name)}"), said["description"])
            for name, said in self._tokens.items()
        ]
        return element(
            "section",
            element("h2", "How to ask"),
            element("p", prose(where)),
            element("p", prose(shown if rows else unlocked)),
            _table(("token", "in commands", "what it is"), rows),
        )

    def _route(self, route: Route) -> Markup:
        said = route.said
        asked, told = said.get("parameters", []), said["responses"]
        return element(
            "article",
            element("h3", _heading(route), id=said["operationId"]),
            *(element("p", prose(text)) for text in said["description"].split("\n\n")),
            self._asks(route),
            *(element("pre", _code(command)) for command in route.commands()),
            _part("Parameters", _table(("name", "kind", "meaning"), map(self._parameter, asked))),
            self._bodies(route),
            *(self._answer(status, told[status]) for status in sorted(told) if status < "400"),
            self._refusals({status: told[status] for status in sorted(told) if status >= "400"}),
        )

    def _asks(self, route: Route) -> Markup:
        if not self._tokens:
            return joined()
        tokens = joined(*(_link(name, f"token-{name}") for name in route.tokens))
        return element("p", "Asks for ", *(["the ", tokens] if tokens else ["no"]), " token.")

    def _parameter(self, one: Said) -> Sequence[Markup]:
        need = "required" if one["required"] else "optional"
        kind = f"in the {one['in']}, {need}: {self._shapes.kind(given(one['schema']))}"
        return _code(one["name"]), prose(kind), prose(one["description"])

    def _bodies(self, route: Route) -> Markup:
        rows, schemas = [], []
        for kind, body in route.bodies.items():
            schemas.append(body["schema"])
            rows.append(
                (_code(kind), prose(self._shapes.kind(body["schema"])), _code(example_of(body)))
            )
        fields = (self._fields(schema) for schema in schemas)
        return _part("Body", _table(("content type", "kind", "example"), rows), *fields)

    def _answer(self, status: str, said: Said) -> Markup:
        return joined(
            element("h4", "Answer ", _code(status), " ", *map(_code, said["content"])),
            element("p", prose(words_of(said))) if words_of(said) else joined(),
            *(self._shape(content["schema"]) for content in said["content"].values()),
        )

    def _refusals(self, told: Said) -> Markup:
        if not told:
            return joined()
        heads = ("status", "comes as", "meaning")
        rows = (
            (_code(status), joined(*map(_comes_as, said["content"].items())), prose(words_of(said)))
            for status, said in told.items()
        )
        return element(
            "details", element("summary", "Errors: ", ", ".join(told)), _table(heads, rows)
        )

    def _errors(self) -> Markup:
        """What they look like, which is the same for most."""
        schemas = dict(self._refused())
        parts = (
            element("article", element("h3", _code(name), id=name), self._shape(schema))
            for name, schema in schemas.items()
        )
        return element("section", element("h2", "Errors"), *parts)

    def _refused(self) -> Iterator[tuple[str, Said]]:
        for routes in self._tags.values():
            for route in routes:
                for status, said in route.said["responses"].items():
                    for content in said["content"].values():
                        if status >= "400":
                            yield name_of(content["schema"]), content["schema"]

    def _shape(self, schema: Said) -> Markup:
        words = self._shapes.words(schema)
        texts = (element("p", prose(text)) for text in words.split("\n\n") if text)
        return joined(*texts, self._fields(schema))

    def _fields(self, schema: Said) -> Markup:
        rows = (
            (_code(field.name), prose(field.kind), prose(field.words))
            for field in self._shapes.fields(schema)
        )
        return _table(("field", "kind", "meaning"), rows)


def _heading(route: Route) -> Markup:
    return _link(
        joined(_code(route.method.upper()), " ", _code(route.path)), route.said["operationId"]
    )


def _item(route: Route) -> Markup:
    return element("li", _heading(route))


def _link(text: str, to: str) -> Markup:
    return element("a", text, href=f"#{to}")


def _code(text: str, **attributes: str) -> Markup:
    return element("code", text, **attributes) if text else joined()


def _comes_as(content: tuple[str, Said]) -> Markup:
    kind, said = content
    return joined(_link(name_of(said["schema"]), name_of(said["schema"])), ", ", _code(kind))


def _part(heading: str, *inside: Markup) -> Markup:
    """With its heading, if there is anything in it."""
    return joined(element("h4", heading), *inside) if any(inside) else joined()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """With the first of each row as its head; nothing, if it has no rows."""
    lines = [
        element("tr", element("th", first, scope="row"), *(element("td", one) for one in others))
        for first, *others in rows
    ]
    head = element("tr", *(element("th", one, scope="col") for one in heads))
    return element("table", element("thead", head), element("tbody", *lines)) if lines else joined()
