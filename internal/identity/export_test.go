package identity

// SaveForTest lets tests begin with an identity, as after a restart.
var SaveForTest = saveFile
