"""`lorif explore`: one warm process that answers questions on influence, as pages, as JSON and to assistants (MCP)."""
