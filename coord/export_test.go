package coord

// EncodeHeld and DecodeClaim are for tests from outside.
var (
	EncodeHeld  = encodeHeld
	DecodeClaim = decodeClaim
)

// ClaimedRecord returns the encoded record in the body of an OpClaim.
func ClaimedRecord(body []byte) []byte {
	_, r, _, err := decodeClaim(body)
	if err != nil {
		panic(err)
	}
	return r.Append(nil)
}
