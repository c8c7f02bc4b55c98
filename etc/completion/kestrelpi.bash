# shellcheck shell=bash
# Completion of kestrelpi for bash: the program itself knows its commands, options and nodes.
eval "$(_KESTRELPI_COMPLETE=bash_source kestrelpi)"
