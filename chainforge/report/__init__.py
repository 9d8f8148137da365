"""The report: what the graph left behind, as tables, figures and one page that opens offline."""
