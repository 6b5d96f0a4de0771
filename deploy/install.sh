#!/bin/bash
# Installs wisp on this machine (Debian 12), or brings what is installed up to this checkout. Again: nothing is done twice.
#
#   deploy/install.sh                    everything: Debian packages, /opt/wisp, units; then it says what is next
#   deploy/install.sh --without-systemd  the same, and no unit is reloaded, restarted or disabled
#   deploy/install.sh --root DIR         only files, under DIR; no packages, no account, no systemd
#
# It starts nothing that was not running: `wisp init` and `wisp join` do. Python packages are pinned with their digests
# (deploy/requirements.lock); libvirt's bindings are Debian's. The store and TLS run by units of wisp's own, so Debian's etcd.service
# and nginx.service are kept from starting, but only where this brings them in.
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
deploy=$(dirname "$(realpath "$0")")
project=$(dirname "$deploy")
root='' systemd=yes
units=(wisp-etcd wisp-api wisp-tls wisp-agent)

usage() { sed -n '4,6s/^# *//p' "$0" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --root) [ $# -ge 2 ] || usage; root=$(realpath -m "$2") systemd=no; shift ;;
    --without-systemd) systemd=no ;;
    *) usage ;;
    esac
    shift
done
[ "$systemd" = no ] || [ -d /run/systemd/system ] || { echo "install: systemd does not run here; --without-systemd installs all the same" >&2; exit 1; }
[ -n "$root" ] || [ "$(id -u)" = 0 ] || { echo "install: only root can" >&2; exit 1; }

says() { echo "install: $*"; }

# ---- Debian packages ----------------------------------------------------------------------------------------------------------

wanted() { sed -n '/^# the service itself/,/^$/p' "$project/tools/packages.txt" | grep -v '^#' | sed '/^$/d'; }
is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2> /dev/null)" = installed ]; }

apt_install() {  # PACKAGES…: with all their daemons but two
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\ncase $1 in etcd|nginx) exit 101 ;; esac\n' > $policy
        chmod 755 $policy
    fi
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@"
}

packages() {
    local each missing=()
    for each in $(wanted); do is_installed "$each" || missing+=("$each"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    says "Debian packages: ${missing[*]}"
    apt_install "${missing[@]}" || { apt-get -q update && apt_install "${missing[@]}"; }
    [ "$systemd" = yes ] || return 0
    for each in "${missing[@]}"; do
        case $each in etcd-server) systemctl disable --quiet etcd ;; nginx) systemctl disable --quiet nginx ;; esac
    done
}

account() {  # by which the API runs; etcd's own comes with its package, and nginx serves as www-data
    getent passwd wisp > /dev/null && return
    says "the account wisp"
    useradd --system --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin wisp
}

# ---- files --------------------------------------------------------------------------------------------------------------------

changed=no

program() {  # /opt/wisp is a venv that sees Debian's packages, for libvirt's sake
    local here=$root/opt/wisp digest
    digest=$(cd "$project" && { /usr/bin/python3 -V; cat pyproject.toml deploy/requirements.lock
        find server/wisp schemas -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
    [ "$(cat "$here/installed" 2> /dev/null)" != "$digest" ] || return 0
    says "the program, in $here"
    rm -f "$here/installed"
    [ -x "$here/bin/python" ] || /usr/bin/python3 -m venv --system-site-packages "$here"
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
    "$here/bin/python" -m pip install --quiet --ignore-installed --require-hashes -r "$deploy/requirements.lock"
    "$here/bin/python" -m pip install --quiet --no-deps --no-build-isolation --force-reinstall "$project"
    echo "$digest" > "$here/installed"
    changed=yes
}

file() {  # SOURCE TARGET
    cmp -s "$1" "$root$2" && return
    says "$2"
    install -D -m 644 "$1" "$root$2"
    changed=yes
}

command_link() {
    local link=$root/usr/local/bin/wisp
    [ "$(readlink "$link")" != /opt/wisp/bin/wisp ] || return 0
    says /usr/local/bin/wisp
    mkdir -p "${link%/*}"
    ln -sfn /opt/wisp/bin/wisp "$link"
}

[ -n "$root" ] || { packages; account; }
program
command_link
for unit in "${units[@]}"; do file "$deploy/$unit.service" "/etc/systemd/system/$unit.service"; done
if [ "$changed" = yes ] && [ "$systemd" = yes ]; then
    systemctl daemon-reload
    systemctl try-restart wisp-api wisp-tls wisp-agent
fi
[ -e "$root/etc/wisp/wisp.toml" ] || echo 'Next: `wisp init --underlay ADDRESS` on the first machine, `wisp join TOKEN --underlay ADDRESS` on others.'
