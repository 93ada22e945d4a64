"""Programs that turn raw data sets into prepared, verified records."""
