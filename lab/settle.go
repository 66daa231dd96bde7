package lab

// settle picks from a journal's events those that count, in their order:
//
//   - none that an undo takes back, and no undo;
//   - verdicts by hand as verdicts, one for each commit: the last one;
//   - of a commit that has one, no test, whenever it was made;
//   - no test that a verdict by hand says cannot be: bad, where something built
//     upon the commit is good by hand, or good where something it is built upon
//     is bad by hand;
//   - no verdict that was taken over from a test that does not count;
//   - an end only where nothing came behind it.
//
// Nothing is lost by it: take back the verdict by hand, and the tests that it
// overruled count again. Without a lineage, only verdicts of the same commit
// overrule each other.
func settle(events []record, l *lineage) []record {
	gone := map[int]bool{}
	hand := map[string]record{} // by commit
	for _, e := range events {
		for _, n := range e.Undo {
			gone[n] = true
		}
	}
	for _, e := range events {
		if gone[e.line] {
			continue
		}
		for _, t := range e.Hand {
			hand[t.Commit.Hash] = e
		}
	}
	overruled := overrule(hand, l)
	var list []record
	for i, e := range events {
		switch {
		case gone[e.line] || e.Event == eventUndo:
		case e.Event == eventEnd && i < len(events)-1:
		case e.Event == eventVerdict && (overruled(e.Tested.Commit.Hash, e.Tested.Mark) || overruled(e.Tested.Inferred, e.Tested.Mark)):
		case e.Event == eventHand:
			for _, t := range e.Hand {
				if hand[t.Commit.Hash].line == e.line {
					list = append(list, record{Event: eventVerdict, Time: e.Time, Tested: &t, line: e.line})
				}
			}
		default:
			list = append(list, e)
		}
	}
	return list
}

// overrule tells which tests of a commit do not count: those with such a mark.
func overrule(hand map[string]record, l *lineage) func(hash string, mark Mark) bool {
	if len(hand) == 0 {
		return func(string, Mark) bool { return false }
	}
	var goods, bads []string
	for hash, e := range hand {
		for _, t := range e.Hand {
			switch {
			case t.Commit.Hash != hash:
			case t.Mark == Good:
				goods = append(goods, hash)
			case t.Mark == Bad:
				bads = append(bads, hash)
			}
		}
	}
	if l == nil {
		l = newLineage(nil)
	}
	below, above := l.set(goods...), l.set(bads...)
	l.ancestors(below)
	l.descendants(above)
	return func(hash string, mark Mark) bool {
		if _, said := hand[hash]; said {
			return true
		}
		i, ok := l.at[hash]
		return ok && (below[i] && mark == Bad || above[i] && mark == Good)
	}
}
