"""Reports: tables, CSV and one self-contained HTML file."""
