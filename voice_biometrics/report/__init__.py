"""Results to report.md, report.html and plots."""
