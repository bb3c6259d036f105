"""Functions that only note what they are given, in place of those that would do the work."""


class Notes(list):
    """Calls of functions that only note what they were given: (name, *arguments, **options)."""

    def of(self, name, answer=None):
        """A function of that name; answer: what it returns, or a function that says it."""

        def noted(*arguments, **options):
            self.append((name, *arguments, *([options] if options else [])))
            return answer(*arguments) if callable(answer) else answer

        return noted
