package spec

import "reflect"

// Common holds tables that services have in common. Most services have the
// defaults, or what a few others have, and need no memory of their own for it.
type Common struct {
	lifecycles []*Lifecycle
	loggings   []*Logging
	limits     []*Limits
}

// Share gives a service those tables that are there already. The others are
// kept for the next.
func (c *Common) Share(s *Service) {
	share(&c.lifecycles, &s.Lifecycle)
	share(&c.loggings, &s.Logging)
	share(&c.limits, &s.Limits)
}

// maxCommon bounds the tables of a kind that are compared with each new one:
// where there are many, such as log files with a name for each service, few are
// equal.
const maxCommon = 16

func share[T any](known *[]*T, table **T) {
	for _, k := range *known {
		if reflect.DeepEqual(k, *table) {
			*table = k
			return
		}
	}
	if len(*known) < maxCommon {
		*known = append(*known, *table)
	}
}
