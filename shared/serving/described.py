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
from collections.abc import Mapping, Sequence
from typing import Any

from shared.serving.commands import Route, example_of, variable
from shared.serving.markup import Markup, code, element, joined, link, part, prose, table
from shared.serving.shapes import Shapes, given, name_of, words_of

Said = Mapping[str, Any]


class Description:
    def __init__(self, document: Said) -> None:
        self.title, self.version = document["info"]["title"], document["info"]["version"]
        parts = document["components"]
        self._shapes, self._tokens = Shapes(parts["schemas"]), parts.get("securitySchemes", {})
        self._routes = [
            Route(path, method, said)
            for path, methods in document["paths"].items()
            for method, said in methods.items()
        ]
        self._tags = defaultdict[str, list[Route]](list)
        for route in self._routes:
            self._tags[route.said["tags"][0]].append(route)

    def contents(self) -> Markup:
        """A list of links, by tag."""
        groups = (
            element("li", link(tag, f"tag-{tag}"), element("ul", *map(_item, routes)))
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
            (code(name, id=f"token-{name}"), code(f"${variable(name)}"), said["description"])
            for name, said in self._tokens.items()
        ]
        return element(
            "section",
            element("h2", "How to ask"),
            element("p", prose(where)),
            element("p", prose(shown if rows else unlocked)),
            table(("token", "in commands", "what it is"), rows),
        )

    def _route(self, route: Route) -> Markup:
        said = route.said
        asked = map(self._parameter, said.get("parameters", []))
        return element(
            "article",
            element("h3", _heading(route), id=said["operationId"]),
            *(element("p", prose(text)) for text in said["description"].split("\n\n")),
            self._asks(route),
            *(element("pre", code(command)) for command in route.commands()),
            part("Parameters", table(("name", "kind", "meaning"), asked)),
            self._bodies(route),
            *(self._answer(*one) for one in route.answers(errors=False).items()),
            self._refusals(route.answers(errors=True)),
        )

    def _asks(self, route: Route) -> Markup:
        if not self._tokens:
            return joined()
        tokens = joined(*(link(name, f"token-{name}") for name in route.tokens))
        return element("p", "Asks for ", *(["the ", tokens] if tokens else ["no"]), " token.")

    def _parameter(self, one: Said) -> Sequence[Markup]:
        need = "required" if one["required"] else "optional"
        kind = f"in the {one['in']}, {need}: {self._shapes.kind(given(one['schema']))}"
        return code(one["name"]), prose(kind), prose(one["description"])

    def _bodies(self, route: Route) -> Markup:
        kind = self._shapes.kind
        rows = [
            (code(media_type), prose(kind(body["schema"])), code(example_of(body)))
            for media_type, body in route.bodies.items()
        ]
        fields = (self._fields(body["schema"]) for body in route.bodies.values())
        return part("Body", table(("content type", "kind", "example"), rows), *fields)

    def _answer(self, status: str, said: Said) -> Markup:
        return joined(
            element("h4", "Answer ", code(status), " ", *map(code, said["content"])),
            element("p", prose(words_of(said))) if words_of(said) else joined(),
            *(self._shape(content["schema"]) for content in said["content"].values()),
        )

    def _refusals(self, told: Said) -> Markup:
        if not told:
            return joined()
        heads = ("status", "comes as", "meaning")
        rows = (
            (code(status), joined(*map(_comes_as, said["content"].items())), prose(words_of(said)))
            for status, said in told.items()
        )
        return element(
            "details", element("summary", "Errors: ", ", ".join(told)), table(heads, rows)
        )

    def _errors(self) -> Markup:
        """What they look like, which is the same for most."""
        schemas = {
            name_of(content["schema"]): content["schema"]
            for route in self._routes
            for said in route.answers(errors=True).values()
            for content in said["content"].values()
        }
        parts = (
            element("article", element("h3", code(name), id=name), self._shape(schema))
            for name, schema in schemas.items()
        )
        return element("section", element("h2", "Errors"), *parts)

    def _shape(self, schema: Said) -> Markup:
        words = self._shapes.words(schema)
        texts = (element("p", prose(text)) for text in words.split("\n\n") if text)
        return joined(*texts, self._fields(schema))

    def _fields(self, schema: Said) -> Markup:
        rows = (
            (code(field.name), prose(field.kind), prose(field.words))
            for field in self._shapes.fields(schema)
        )
        return table(("field", "kind", "meaning"), rows)


def _heading(route: Route) -> Markup:
    return link(
        joined(code(route.method.upper()), " ", code(route.path)), route.said["operationId"]
    )


def _item(route: Route) -> Markup:
    return element("li", _heading(route))


def _comes_as(content: tuple[str, Said]) -> Markup:
    kind, said = content
    return joined(link(name_of(said["schema"]), name_of(said["schema"])), ", ", code(kind))
