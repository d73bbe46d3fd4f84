"""Result lines, tables, summaries, reports."""
