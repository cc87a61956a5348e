"""Questions that select training data: found first, then told of, and written where that is allowed."""

from lorif_assets.explorer.answers import Answers, Progressed
from lorif_assets.explorer.places import Places
from lorif_assets.explorer.questions import QuerySetQuestion, SelectionQuestion, WriteQuestion
from lorif_assets.explorer.selections import SelectedData, SelectionFolder, WrittenSelection, selected_data
from lorif_assets.influences.catalogue import scored_query
from lorif_assets.influences.wanted_rows import WantedRows


class Selecting:
    """Selections of a project's training data; `folder` is where they may be written."""

    def __init__(self, places: Places, answers: Answers, folder: SelectionFolder) -> None:
        self._places, self._answers, self.folder = places, answers, folder

    def select(self, question: SelectionQuestion) -> Progressed:
        """Have part of the training data selected, by its influence on stored queries or by name, and tell how far that is.

        Nothing is written.

        Raises:
            NotStoredError: there is no such checkpoint, query set or query.
            SettingsError: the amount is none.
        """
        return self._answers.ask(self.wanted(question))

    def progress(self, question: SelectionQuestion) -> Progressed:
        """Tell how far a selection is that was asked for.

        Raises:
            NotStoredError: as `select`.
            SettingsError: as `select`.
        """
        return self._answers.progress(self.wanted(question))

    def selection(self, question: SelectionQuestion) -> SelectedData:
        """Tell what part of the training data a selection has: rows by source and by metadata, near-duplicates left out.

        Nothing is written.

        Raises:
            NotStoredError: as `select`, or it was not selected yet.
            SettingsError: as `select`.
        """
        return selected_data(self._answers.selection(self.wanted(question)), self._answers.lake)

    def write(self, question: WriteQuestion) -> WrittenSelection:
        """Write selected training data as files that a trainer reads, where `lorif explore --allow-writing` allows it.

        Raises:
            RefusedError: the explorer was started without a folder to write into.
            NotStoredError: as `selection`.
            SettingsError: the name is none, or is taken.
            LorifError: as `Selection.write`.
        """
        wanted = self.wanted(question)
        self.folder.place(wanted, question.output)
        return self.folder.write(self._answers.selection(wanted), question.output)

    def wanted(self, question: SelectionQuestion) -> WantedRows:
        """Return the rows that a question selects.

        Raises:
            NotStoredError: there is no such checkpoint, query set or query.
            SettingsError: the amount is none.
        """
        if question.ids:
            return question.wanted("", "")
        checkpoint, query_set = self._places.of(question)
        if question.query:
            scored_query(self._answers.lake, checkpoint, query_set, question.query)
        wanted = question.wanted(checkpoint, query_set)
        for other in wanted.query_sets:
            self._places.of(QuerySetQuestion(checkpoint=checkpoint, query_set=other))
        return wanted
