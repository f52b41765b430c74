"""The method's paper (Li and Liang 2021) rerun on any base: tasks, methods, scores, tables."""
