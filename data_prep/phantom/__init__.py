"""A phantom hospital: drawn chest radiographs and written reports in the layouts of data sets."""
