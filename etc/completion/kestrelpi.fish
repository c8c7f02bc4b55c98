# Completion of kestrelpi for fish: the program itself knows its commands, options and nodes.
_KESTRELPI_COMPLETE=fish_source kestrelpi | source
