"""The HTTP API: Falcon comes in here and nowhere else.

The routes are the catalogue's kinds, so that a new kind has its addresses the moment its schema
exists. Everything is answered from `Resources`; here is only what HTTP adds: reading a request
strictly, preconditions, holding a request for a while, and saying what went wrong.
"""
from __future__ import annotations

import falcon

from wisp.api.access import Access
from wisp.api.documents import Changes, Collection, Document, Events, Seats
from wisp.api.front import Alive, Audit, Front, Ready
from wisp.api.problems import Answers
from wisp.catalogue import Catalogue
from wisp.errors import Problem
from wisp.resources import Resources


def build(resources: Resources, catalogue: Catalogue, held: int = 32) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application; at most `held` requests wait at a time (half of the server's threads)."""
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App(middleware=[Access()])
    app.req_options.strip_url_path_trailing_slash = True
    answers = Answers(catalogue.errors)
    app.add_error_handler(Exception, answers.unforeseen)
    app.add_error_handler(falcon.HTTPError, answers.falcon_error)
    app.add_error_handler(Problem, answers.problem)

    seats = Seats(held)
    links = ["/livez", "/readyz", "/v1/audit"]
    for schema in catalogue.kinds.values():
        collection = f"/v1/{schema.plural}" if schema.cluster else f"/v1/namespaces/{{outer}}/{schema.plural}"
        document = f"{collection}/{{outer}}" if schema.cluster else f"{collection}/{{inner}}"
        app.add_route(collection, Collection(schema, resources, seats))
        app.add_route(document, Document(schema, resources, seats))
        app.add_route(f"{document}/events", Events(schema, resources, seats))
        links.append(collection.replace("outer", "namespace"))

    app.add_route("/", Front(links))
    app.add_route("/livez", Alive())
    app.add_route("/readyz", Ready(resources))
    app.add_route("/v1/changes", Changes(resources, seats))
    app.add_route("/v1/audit", Audit(resources))
    return app
