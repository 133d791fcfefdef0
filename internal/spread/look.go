package spread

// looks is what frames are for.
var looks = map[byte]string{
	kindLeaf: "frames", kindBranch: "frames", kindReceipt: "receipts", kindRefusal: "receipts",
	kindDigest: "digests", kindAnswer: "answers", kindWhole: "answers", kindLast: "answers",
}

// Look tells what a frame is for, also of a part of one, and gives the records in a whole one:
// for who counts what is sent. What is no frame is "malformed".
func Look(b []byte) (what string, raws [][]byte) {
	if len(b) == 0 || looks[b[0]&^urge] == "" {
		return "malformed", nil
	}
	what = looks[b[0]&^urge]
	f, err := decode(b)
	if err != nil || f.kind == kindDigest {
		return what, nil
	}
	for raw := range records(f.rest) {
		raws = append(raws, raw)
	}
	return what, raws
}
