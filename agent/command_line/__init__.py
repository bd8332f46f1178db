"""The command line: its commands, how they are parsed, and what is asked before a run from elsewhere goes on."""
