# Completion of kestrelpi for zsh: the program itself knows its commands, options and nodes.
eval "$(_KESTRELPI_COMPLETE=zsh_source kestrelpi)"
