package spread

// Look tells what a frame is for, and gives the records in it: for who counts what is sent. What
// is no frame is "malformed".
func Look(b []byte) (what string, raws [][]byte) {
	f, err := decode(b)
	if err != nil {
		return "malformed", nil
	}
	switch f.kind {
	case kindLeaf, kindBranch:
		what = "frames"
	case kindAnswer, kindLast, kindWhole:
		what = "answers"
	case kindDigest:
		return "digests", nil
	default:
		return "receipts", nil
	}
	for raw := range records(f.rest) {
		raws = append(raws, raw)
	}
	return what, raws
}
