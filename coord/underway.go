package coord

// UnderWay returns how many operations and callbacks of this node are under way:
// those of its clients, what it serves for peers, and what of either goes on after
// the answer.
func (c *Coordinator) UnderWay() int {
	return int(c.held.Load() &^ closed)
}
