"""What preparers of data sets share: tables, reports, images, splits, and the writer of a set."""
