// Package appliance tests the program as operators use it: `holdfast up` and its folder, the separate daemons, the commands, their messages and their exit codes.
package appliance
