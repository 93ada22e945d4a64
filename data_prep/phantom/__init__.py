"""A phantom hospital: synthetic chest radiographs and reports in the layouts of real data sets."""
