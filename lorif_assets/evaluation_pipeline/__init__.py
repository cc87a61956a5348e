"""The evaluation around its mathematics: settings, figures in the lake, what is out of date, `lorif evaluate`."""
