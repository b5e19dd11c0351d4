"""Arrays in, numbers out: error rates, log-likelihood ratios, calibration, intervals over speakers."""
