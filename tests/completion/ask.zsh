# ask.zsh FOLDER LINE: what the completion offers for LINE, one a line. The function runs in this zsh; what it calls of
# zsh's completion system, which needs a terminal, is replaced by functions that print.
emulate zsh
setopt extended_glob
compadd() { while [[ $1 == -* ]]; do [[ $1 == -- ]] && { shift; break }; shift; done; offer "$@" }
offer() { local word; for word; do [[ $word == "$PREFIX"* ]] && print -r -- "$IPREFIX$word"; done; true }
compset() { # -P PATTERN
    local kept=${PREFIX##${~2}}
    IPREFIX+=${PREFIX%"$kept"} PREFIX=$kept
}
_describe() { # [-o] TAG ARRAY...
    [[ $1 == -o ]] && shift
    local entry
    for entry in "${(@P)2}"; do offer "${${entry%%[^\\]:*}}${${entry#${entry%%[^\\]:*}}[1]}"; done
}
_files() { offer ${PREFIX}*(N) }
_command_names() { offer $commands[(I)$PREFIX*] }
compdef() { true }

words=(${=2}) PREFIX= IPREFIX=
[[ $2 == *' ' ]] && words+=('')
CURRENT=$#words PREFIX=$words[-1]
source "$1/_clatd"
