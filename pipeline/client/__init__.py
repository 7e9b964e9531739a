"""HTTP client for the Images API: requests, responses, errors and downloads."""
