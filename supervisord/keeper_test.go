package main

import (
	"slices"
	"testing"
)

func TestLogPipesOfEarlierRunsAreTakenFirst(t *testing.T) {
	k := &keeper{fds: map[string]int{
		"log/10/stdout/web": 5, "log/9/stdout/web": 6, "log/9/stderr/web": 7, "log/1000/stdout/db": 8, "listen/web/0": 9,
	}}
	var got []int
	k.takeLogs(func(_ string, fd int) { got = append(got, fd) })
	if want := []int{7, 6, 5, 8}; !slices.Equal(got, want) {
		t.Errorf("taken in the order of %v, want %v", got, want)
	}
	if len(k.fds) != 1 {
		t.Errorf("left are %v, want the listener", k.fds)
	}
}
