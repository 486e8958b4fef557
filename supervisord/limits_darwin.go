package main

import "fmt"

// capabilityNumbers is for what macOS does not have.
func capabilityNumbers(names []string) ([]int, error) {
	if len(names) > 0 {
		return nil, fmt.Errorf("cannot give capability %s: macOS does not have it", names[0])
	}
	return nil, nil
}
