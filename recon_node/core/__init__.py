"""Types, errors, protocols and the Fourier transform every stage shares; only numpy here."""
