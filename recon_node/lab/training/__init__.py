"""Training: data on the fly, loss, a loop that resumes exactly, and the settings that decide a run."""
