"""The command `iorec plot`."""
