"""The HTTP API: Falcon comes in here and nowhere else.

The routes are the catalogue's kinds, so that a new kind has its addresses the moment its schema
exists. Everything is answered from `Resources`; here is only what HTTP adds: reading a request
strictly, preconditions, holding a request for a while, and saying what went wrong.
"""
from __future__ import annotations

from typing import Any

import falcon

from wisp.api.access import Access, Measure
from wisp.api.bearers import Bearers
from wisp.api.docs import Docs, DocsFile
from wisp.api.documents import Changes, Collection, Document, Events, Seats
from wisp.api.front import Alive, Audit, Front, Join, Ready
from wisp.api.openapi import OpenApi
from wisp.api.problems import Answers
from wisp.catalogue import Catalogue
from wisp.enrolment import Enrolment
from wisp.errors import Problem
from wisp.resources import Resources


def build(resources: Resources, catalogue: Catalogue, held: int = 32,
          measure: Measure = lambda *_: None,
          enrolment: Enrolment | None = None) -> falcon.App[falcon.Request, falcon.Response]:
    """The WSGI application; at most `held` requests wait at a time (half of the server's threads)."""
    app: falcon.App[falcon.Request, falcon.Response] = falcon.App(middleware=[Access(measure)])
    app.req_options.strip_url_path_trailing_slash = True
    answers = Answers(catalogue.errors)
    app.add_error_handler(Exception, answers.unforeseen)
    app.add_error_handler(falcon.HTTPError, answers.falcon_error)
    app.add_error_handler(Problem, answers.problem)

    bearers, seats = Bearers(resources.authenticate), Seats(held)
    routes: dict[str, Any] = {"/livez": Alive(), "/readyz": Ready(resources), "/docs": Docs(catalogue.errors),
                              "/v1/changes": Changes(resources, bearers, seats), "/v1/audit": Audit(resources, bearers)}
    links = [*routes, "/openapi.json"]
    for schema in catalogue.kinds.values():
        collection = f"/v1/{schema.plural}" if schema.cluster else f"/v1/namespaces/{{outer}}/{schema.plural}"
        document = f"{collection}/{{outer}}" if schema.cluster else f"{collection}/{{inner}}"
        routes[collection] = Collection(schema, resources, bearers, seats)
        routes[document] = Document(schema, resources, bearers, seats)
        routes[f"{document}/events"] = Events(schema, resources, bearers, seats)
        links.append(collection.replace("outer", "namespace"))
    routes |= {"/": Front(catalogue.minor, links), "/openapi.json": OpenApi(catalogue, routes)}
    for address, resource in routes.items():
        app.add_route(address, resource)
    app.add_route("/docs/{file}", DocsFile())
    if enrolment:
        app.add_route("/join", Join(enrolment))
    return app
