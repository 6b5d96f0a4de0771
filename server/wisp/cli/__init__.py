"""The command `wisp`: the API from a terminal.

Kinds are spoken of by their singular or plural, read from the same schema files as the API's routes.
The exit code is part of the contract, so that scripts need not read words; it is in `wisp --help`.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from getpass import getpass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from urllib.parse import quote

from wisp import __version__, catalogue, environment
from wisp.catalogue import Schema
from wisp.cli import completion, files, show
from wisp.cli.client import Client, Refused, TimeIsUp, Unanswered
from wisp.conditions import has_failed

DONE, REFUSED, USAGE, ABSENT, LATE, FAILED, UNANSWERED = 0, 1, 2, 3, 4, 5, 6
LATER = ("reference", "not_found")      # what may only have been asked for too early
HERE = "http://127.0.0.1:7480"
CONFIG = Path("~/.config/wisp/config")
PROCESSES = {"dev": ("wisp.main:dev", "a whole cloud on this machine"),
             "api": ("wisp.processes:api", "the API and the conductor of a cluster"),
             "agent": ("wisp.processes:agent", "the agent of this node"),
             "init": ("wisp.installation:init", "the first machine of a cluster"),
             "token": ("wisp.membership:token", "lets one machine join"),
             "join": ("wisp.membership:join", "this machine becomes a node"),
             "leave": ("wisp.membership:leave", "this node goes"),
             "admin-key": ("wisp.processes:admin_key", "an administrator's key, from the store itself")}
EPILOG = """\
environment, and where it is silent, what `wisp login` has stored in ~/.config/wisp/config:
  WISP_ENDPOINT   where the API is (http://127.0.0.1:7480)
  WISP_TOKEN      an API key
  WISP_NAMESPACE  the namespace where -n is not given

exit codes:
  0  done               4  time is up, and it is not so yet
  1  refused, or audit  5  the resource has failed for good
     found something    6  no answer from the service
  2  wrong usage        3  there is no such thing
"""


class Usage(Exception):
    """The command line, or what it names, makes no sense."""


class Command:
    """One call of `wisp`, with what its verbs need."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.said = arguments
        self.kinds = catalogue.load()
        given = {name: os.environ[name] for name in environment.NAMES if os.environ.get(name)}
        self.set = {environment.ENDPOINT: HERE, **environment.read(CONFIG.expanduser()), **given}
        self.applied: list[dict[str, Any]] = []
        self.client = Client(self.set[environment.ENDPOINT], self.set.get(environment.TOKEN, ""), self.kinds.minor)

    # --- addresses

    def schema(self, word: str) -> Schema:
        found = self.kinds.kinds.get(word) or self.kinds.by_plural.get(word)
        if not found:
            raise Usage(f"there is no kind {word}; there are {', '.join(sorted(self.kinds.kinds))}")
        return found

    def collection(self, schema: Schema, namespace: str = "") -> str:
        if schema.cluster:
            return f"/v1/{schema.plural}"
        if not (within := self.within(namespace)):
            raise Usage("which namespace? give -n or set WISP_NAMESPACE")
        return f"/v1/namespaces/{_part(within)}/{schema.plural}"

    def within(self, namespace: str = "") -> str:
        return namespace or self.said.namespace or self.set.get(environment.NAMESPACE, "")

    def path(self, kind: str, name: str, namespace: str = "") -> str:
        return f"{self.collection(self.schema(kind), namespace)}/{_part(name)}"

    def named(self) -> str:
        return self.path(self.said.kind, self.said.name)

    # --- verbs

    def get(self) -> int:
        if not self.said.name:
            return self.list()
        show.documents([self.client.call("GET", self.named())], self.said.output, one=True)
        return DONE

    def list(self) -> int:
        query = dict(_selector(each) for each in self.said.selector)
        found = list(self.client.pages(self.collection(self.schema(self.said.kind)), query))
        show.documents(found, self.said.output)
        return DONE

    def describe(self) -> int:
        found, events = (self.client.call("GET", self.named() + more) for more in ("", "/events"))
        show.answer({**found, "events": events["items"]}, self.said.output, [show.called(found)],
                    lambda: show.described(found, events["items"]))
        return DONE

    def events(self) -> int:
        found = self.client.call("GET", f"{self.named()}/events")
        texts = (event["text"] for event in found["items"])
        show.answer(found, self.said.output, texts, lambda: show.happenings(found["items"]))
        return DONE

    def nodes(self) -> int:
        found = list(self.client.pages("/v1/nodes", {}))
        show.answer({"items": found}, self.said.output, map(show.called, found), lambda: show.nodes(found))
        return DONE

    def apply(self) -> int:
        """People and pipes are told of each document when it is done, a program once, of all, whatever ends it."""
        try:
            return self._apply()
        finally:
            if self.said.output in show.WHOLE:
                show.documents(self.applied, self.said.output)

    def _tell(self, document: dict[str, Any], people: Callable[[], None]) -> None:
        self.applied.append(document)
        if self.said.output not in show.WHOLE:
            show.answer(document, self.said.output, [show.called(document)], people)

    def _apply(self) -> int:
        """In rounds: what refers to something further down is refused at first, and asked again."""
        pending = [document for source in self.said.file for document in files.documents(source)]
        given = set(map(show.called, pending)) if self.said.dry_run else set()
        final: list[tuple[dict[str, Any], Refused]] = []
        while pending:
            refused = [(document, refusal) for document in pending if (refusal := self._put(document, given))]
            later = [each for each in refused if each[1].code in LATER]
            final += [each for each in refused if each not in later]
            if len(later) == len(pending):
                final += later
                break
            pending = [document for document, _ in later]
        for document, refusal in final:
            print(f"{document['kind']} {document['name']}: {refusal}", file=sys.stderr)
        return REFUSED if final else DONE

    def _foretold(self, document: dict[str, Any], refusal: Refused, given: set[str]) -> bool:
        """Whether all that it misses is to be made of the same files; then says so."""
        faults = {fault["pointer"] for fault in refusal.problem.get("errors", [])}
        references = self.schema(document["kind"]).references(document.get("spec", {}))
        missed = {f"{each.kind}/{each.name}" for each in references if each.pointer in faults}
        missed = missed or {f"namespace/{self.within(document.get('namespace', ''))}"}
        if later := refusal.code in LATER and missed <= given:
            self._tell({**document, "changes": {}, "after": sorted(missed)},
                       lambda: print(f"{show.called(document)}: create, after {', '.join(sorted(missed))}"))
        return later

    def _put(self, document: dict[str, Any], given: set[str]) -> Refused | None:
        path = self.path(document["kind"], document["name"], document.get("namespace", ""))
        body: dict[str, Any] = {part: document[part] for part in ("metadata", "spec") if part in document}
        try:
            shown = self._sent(path, body, self.said.dry_run)
        except Refused as refused:
            return None if self._foretold(document, refused, given) else refused
        self._tell(shown, lambda: show.applied(shown))
        return None

    def _sent(self, path: str, body: dict[str, Any], rehearsed: bool) -> dict[str, Any]:
        """Changes only what was seen, creates only where nothing was. Who loses a race to somebody that wanted the same
        has what they wanted."""
        query = {"dry_run": "true"} if rehearsed else {}
        headers = self.client.seen(path) or {"If-None-Match": "*"}
        try:
            return self.client.call("PUT", path, json=body, params=query, headers=headers)  # type: ignore[no-any-return]
        except Refused as refused:
            if refused.code != "precondition_failed" or rehearsed:
                raise
            again = self._sent(path, body, rehearsed=True)
            if set(again["changes"].values()) != {"none"}:
                raise
            return again

    def delete(self) -> int:
        self.client.call("DELETE", self.named(), headers=self.client.seen(self.named()))
        if self.said.wait:
            self.client.wait(self.named(), "absent", self.said.timeout)
        gone = {"kind": self.schema(self.said.kind).kind, "name": self.said.name}
        show.answer(gone, self.said.output, [show.called(gone)], lambda: None)
        return DONE

    def wait(self) -> int:
        shown = self.client.wait(self.named(), self.said.until, self.said.timeout)
        if shown is None:
            return DONE
        show.documents([shown], self.said.output, one=True)
        return FAILED if has_failed(shown) else DONE

    def audit(self) -> int:
        found = self.client.call("GET", "/v1/audit")
        form = "yaml" if self.said.output == "table" else self.said.output
        show.answer(found, form, (each["claim"] for each in found["orphans"]), lambda: None)
        return REFUSED if found["orphans"] else DONE

    def version(self) -> int:
        show.answer({"version": __version__}, self.said.output, [__version__], lambda: print(f"wisp {__version__}"))
        return DONE

    def login(self) -> int:
        """Tries the key before it keeps it. It is not read from the command line, which others may see."""
        token = getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
        endpoint = self.said.endpoint or self.set[environment.ENDPOINT]
        seen = [each["name"] for each in Client(endpoint, token, self.kinds.minor).pages("/v1/namespaces", {})]
        namespace = self.said.namespace or (seen[0] if len(seen) == 1 else self.within())
        CONFIG.expanduser().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment.write(CONFIG.expanduser(), dict(zip(environment.NAMES, (endpoint, token, namespace), strict=True)))
        return DONE

    def completion(self) -> int:
        verbs: Any = next(each for each in parser()._actions if each.dest == "verb").choices
        kinded = [verb for verb, made in verbs.items() if any(each.dest == "kind" for each in made._actions)]
        words = {"verbs": verbs, "kinded": kinded, "kinds": sorted(self.kinds.by_plural), "formats": show.FORMATS}
        script = completion.SHELLS[self.said.shell] % {name: " ".join(known) for name, known in words.items()}
        show.answer(script, "table", (), lambda: print(script, end=""))
        return DONE


def _part(name: str) -> str:
    """A name as one part of an address, whatever is in it."""
    return quote(name, safe="")


def _selector(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise Usage(f"-l takes KEY=VALUE, not {text}")
    return f"metadata.{key}", value


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in PROCESSES:     # they need a whole service; the other commands do not
        return int(resolve_name(PROCESSES[words[0]][0])(words[1:]))
    arguments = parser().parse_args(words)
    try:
        return int(getattr(Command(arguments), arguments.verb)())
    except (Usage, files.Unreadable) as error:
        return _said(f"wisp: {error}", USAGE)
    except Refused as refused:
        return _said(str(refused), ABSENT if refused.code == "not_found" else REFUSED)
    except TimeIsUp as late:
        show.documents([late.document], arguments.output, one=True)
        return _said("wisp: time is up", LATE)
    except Unanswered as error:
        return _said(f"wisp: {error}", UNANSWERED)


def _said(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="wisp", description="A small cloud.", epilog=EPILOG,
                                    formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-n", "--namespace", help="instead of WISP_NAMESPACE")
    common.add_argument("-o", "--output", choices=show.FORMATS, default="table")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="COMMAND")

    def verb(word: str, what: str, *positional: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(word, help=what, parents=[common])
        for each in positional:
            made.add_argument(each.strip("?"), metavar=each.upper().strip("?"), nargs="?" if "?" in each else None)
        return made

    def waiting(made: argparse.ArgumentParser) -> None:
        made.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="default 300")

    get = verb("get", "one resource, or all of a kind", "kind", "name?")
    listing = verb("list", "all of a kind", "kind")
    for each in (get, listing):
        each.add_argument("-l", "--selector", action="append", default=[], metavar="KEY=VALUE", help="by metadata")
    verb("describe", "everything about one resource, with its events", "kind", "name")
    verb("events", "what happened to a resource", "kind", "name")
    applying = verb("apply", "make it so: create or replace from files")
    applying.add_argument("-f", "--file", action="append", required=True, metavar="FILE|DIR|-", help="JSON or YAML")
    applying.add_argument("--dry-run", action="store_true", help="change nothing; show what would")
    deleting = verb("delete", "retire a resource", "kind", "name")
    deleting.add_argument("--wait", action="store_true", help="until it is gone")
    waiting(deleting)
    holding = verb("wait", "until a resource is ready, or gone", "kind", "name")
    holding.add_argument("--for", dest="until", choices=("ready", "absent"), default="ready")
    waiting(holding)
    verb("audit", "what nobody owns (with an administrator's key)")
    for word, (_, what) in PROCESSES.items():
        verbs.add_parser(word, help=f"{what}; see `wisp {word} --help`", add_help=False)
    verb("nodes", "the machines, and what they are")
    verb("login", "keep an API key, read from stdin").add_argument("--endpoint", metavar="URL", help="where the API is")
    verb("completion", "for a shell: source <(wisp completion bash)").add_argument("shell", choices=completion.SHELLS)
    verb("version", "of this program")
    return whole
