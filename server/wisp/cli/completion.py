"""What a shell needs to complete `wisp`: commands from its parser, kinds from the schema files, names from the API.

Each text wants `verbs`, those of them that take a kind (`kinded`), `kinds` and `formats`.
"""
from __future__ import annotations

BASH = """\
_wisp() {
    local verb=${COMP_WORDS[1]} kinded=" %(kinded)s "
    case $COMP_CWORD:$3 in
        *:-o|*:--output) COMPREPLY=($(compgen -W "%(formats)s" -- "$2")) ;;
        1:*) COMPREPLY=($(compgen -W "%(verbs)s" -- "$2")) ;;
        2:*) [[ $kinded = *" $verb "* ]] && COMPREPLY=($(compgen -W "%(kinds)s" -- "$2")) ;;
        3:*) [[ $kinded = *" $verb "* ]] || return
             COMPREPLY=($(compgen -W "$(wisp list "$3" -o name 2>&- | cut -d/ -f2)" -- "$2")) ;;
    esac
}
complete -o default -F _wisp wisp
"""
ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" + BASH
FISH = """\
complete -c wisp -n "__fish_is_nth_token 1" -f -a "%(verbs)s"
complete -c wisp -n "__fish_is_nth_token 2; and __fish_seen_subcommand_from %(kinded)s" -f -a "%(kinds)s"
complete -c wisp -n "__fish_is_nth_token 3; and __fish_seen_subcommand_from %(kinded)s" -f \\
    -a "(wisp list (commandline -opc)[3] -o name 2>&- | cut -d/ -f2)"
complete -c wisp -s o -l output -x -a "%(formats)s"
"""
SHELLS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
