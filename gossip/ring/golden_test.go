package ring

const (
	goldenEmpty = "0da1a8141638550f"
	goldenHello = "5efc2451a5cc1a38"
	goldenOther = "1738a8f2fcd434f4"
)
