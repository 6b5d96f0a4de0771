"""`wisp init`: the first machine of a cluster; and what a machine is told of itself, whichever it is.

That stands in one directory, which comes into being whole: it is written beside its place and renamed, so
that an `init` or a `join` that was interrupted was not begun. Where systemd runs the machine the units of
`deploy/` are started, elsewhere it is said what to run.
"""
from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import dumps
from pathlib import Path
from typing import Any

from wisp import config, pki
from wisp.errors import Problem
from wisp.lifetime import Unfit
from wisp.processes import DONE, FAILED, USAGE

FILE = "wisp.toml"
API, STORE = 7443, 2379
LISTEN = "127.0.0.1:7480"
SYSTEMD = Path("/run/systemd/system")
COMMANDS = {"wisp-etcd": "etcd --config-file {0}/etcd.yaml",
            "wisp-api": "wisp api --config {0}/wisp.toml",
            "wisp-tls": "nginx -e stderr -p /run/wisp-tls/ -c {0}/nginx.conf -g 'daemon off;'",
            "wisp-agent": "wisp agent --config {0}/wisp.toml"}
"""What the units run, for where there is no systemd."""


def init(argv: Sequence[str]) -> int:
    parser = usage("init", "Makes this machine the first of a cluster: its authority, its store, its API, a node.")
    parser.add_argument("--api", metavar="ADDRESS", type=checked(config.ipv4),
                        help="where clients find the API (the underlay)")
    node_options(parser)

    def do(asked: argparse.Namespace) -> None:
        with drafted(asked.dir) as draft:
            _found(asked, draft)
        begin(asked.dir, *COMMANDS)
        print(f"The API is at https://{asked.api or asked.underlay}:{API}, for those who trust {asked.dir}/ca.pem.\n"
              'Next: `eval "$(wisp admin-key)"` for a first key, `wisp token` to let another machine join.')
    return run(parser, argv, do)


def _found(asked: argparse.Namespace, draft: Path) -> None:
    api, ca = asked.api or asked.underlay, pki.authority()
    hosts = dict.fromkeys([api, asked.underlay, "127.0.0.1", "localhost", os.uname().nodename])
    made = {"server": (pki.issue(ca, api, pki.SERVER, hosts), "root"),
            "etcd": (pki.issue(ca, "etcd", pki.BOTH, hosts), "etcd"),
            "client": (pki.issue(ca, asked.name, pki.CLIENT), "wisp")}
    write(draft / "ca.pem", ca.certificate, mode=0o644)
    write(draft / "ca.key", ca.key, "wisp")
    for name, (identity, owner) in made.items():
        write(draft / f"{name}.pem", identity.certificate, mode=0o644)
        write(draft / f"{name}.key", identity.key, owner)
    asked.state.mkdir(mode=0o711, parents=True, exist_ok=True)
    data = asked.state / "etcd"
    data.mkdir(mode=0o700, exist_ok=True)
    _give(data, "etcd")
    write(draft / "etcd.yaml", dumps(_etcd(asked, data), indent=2).encode(), mode=0o644)
    write(draft / "nginx.conf", NGINX.format(address=f"{api}:{API}", dir=asked.dir, api=LISTEN).encode(), mode=0o644)
    front = {"listen": LISTEN, "public": f"{api}:{API}", "ca_key": str(asked.dir / "ca.key")}
    write_config(asked, draft, [f"{asked.underlay}:{STORE}"], {"api": front})


def _etcd(asked: argparse.Namespace, data: Path) -> Mapping[str, Any]:
    """Its configuration file; JSON is YAML. It does not compact its history by itself."""
    client, peer = (f"https://{asked.underlay}:{port}" for port in (STORE, STORE + 1))
    tls = {"cert-file": str(asked.dir / "etcd.pem"), "key-file": str(asked.dir / "etcd.key"),
           "trusted-ca-file": str(asked.dir / "ca.pem"), "client-cert-auth": True}
    return {"name": asked.name, "data-dir": str(data), "initial-cluster": f"{asked.name}={peer}",
            "listen-client-urls": client, "advertise-client-urls": client,
            "listen-peer-urls": peer, "initial-advertise-peer-urls": peer,
            "client-transport-security": tls, "peer-transport-security": tls,
            "auto-compaction-mode": "revision", "auto-compaction-retention": "10000",
            "quota-backend-bytes": 2 << 30, "logger": "zap", "log-level": "warn"}


NGINX = """\
# Made by `wisp init`: TLS before the API, which itself speaks plain HTTP on loopback and writes the access log.
# Relative paths are in the directory that nginx is given by -p.
user www-data;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    server_tokens off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 2m;                            # more than the API takes: it says so in its own words
    server {{
        listen {address} ssl;
        ssl_certificate {dir}/server.pem;
        ssl_certificate_key {dir}/server.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location / {{
            proxy_pass http://{api};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;  # whoever guesses keys is slowed by address
            proxy_read_timeout 90s;                     # a request may be held for 60
        }}
    }}
}}
"""


# --- what init has in common with others

def usage(verb: str, what: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"wisp {verb}", description=what)
    parser.add_argument("--dir", metavar="DIR", type=absolute, default=config.DEFAULT.parent,
                        help=f"where its configuration is ({config.DEFAULT.parent})")
    return parser


def node_options(parser: argparse.ArgumentParser) -> None:
    option = parser.add_argument
    option("--underlay", metavar="ADDRESS", type=checked(config.ipv4), required=True,
           help="this machine's address on the network between the nodes")
    option("--name", type=checked(config.node_name), default=None, help="of the node, for ever (the host's name)")
    option("--carries", metavar="WHAT,…", type=checked(lambda text: config.carried(text.split(","))),
           default=config.CARRIES, help=f"what may be bound to it ({','.join(config.CARRIES)})")
    option("--state", metavar="DIR", type=absolute, default=Path("/var/lib/wisp"), help="(/var/lib/wisp)")


def checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"must be {error}") from error
    return read


def absolute(text: str) -> Path:
    return Path(text).absolute()


def run(parser: argparse.ArgumentParser, argv: Sequence[str], do: Callable[[argparse.Namespace], None]) -> int:
    """The exit code."""
    asked = parser.parse_args(argv)
    try:
        if getattr(asked, "name", "") is None:
            asked.name = config.host_name()
        do(asked)
        return DONE
    except (Unfit, config.Wrong, Problem, OSError, ValueError, subprocess.SubprocessError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return USAGE if isinstance(error, config.Wrong) else FAILED


@contextmanager
def drafted(place: Path) -> Iterator[Path]:
    """A directory that is put in its place if all goes well. Raises Unfit if there is something already."""
    if place.is_dir() and any(place.iterdir()):
        raise Unfit(f"{place} is not empty: this machine is of a cluster already; see `wisp leave --purge`")
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield draft
        draft.chmod(0o755)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_config(asked: argparse.Namespace, draft: Path, endpoints: list[str],
                 more: Mapping[str, Mapping[str, Any]]) -> None:
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client.key"}
    client = {key: str(asked.dir / name) for key, name in files.items()}
    node = {"name": asked.name, "state": str(asked.state), "underlay": asked.underlay, "carries": list(asked.carries)}
    sections: dict[str, Mapping[str, Any]] = {"store": {"endpoints": endpoints, **client}, **more, "node": node}
    lines = [f"[{title}]\n" + "".join(f"{key} = {dumps(value)}\n" for key, value in keys.items())
             for title, keys in sections.items()]
    write(draft / FILE, "\n".join(lines).encode(), mode=0o644)


def write(path: Path, data: bytes, owner: str = "root", mode: int = 0o600) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
    path.chmod(mode)        # whatever the umask
    _give(path, owner)


def _give(path: Path, owner: str) -> None:
    """To the account that the units run it by; where there is none, nothing is run by it."""
    try:
        shutil.chown(path, owner)
    except LookupError:
        return


def begin(place: Path, *units: str) -> None:
    if systemctl("enable", *units):
        return
    print("There is no systemd here. Keep these running:")
    for each in units:
        print(f"  {COMMANDS[each].format(place)}")


def systemctl(verb: str, *units: str) -> bool:
    """False where there is none."""
    if SYSTEMD.is_dir():
        subprocess.run(["systemctl", verb, "--now", *units], check=True)
    return SYSTEMD.is_dir()
