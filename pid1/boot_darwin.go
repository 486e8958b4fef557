package main

import "errors"

// boot is for a machine that zinit is the init of, which a Mac is not.
func boot() (problems []error) {
	return []error{errors.New("zinit cannot be the init of a Mac")}
}
