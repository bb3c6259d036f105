"""The ground of all compiled code: threads, memory, the register tile, rows and matrix products."""
